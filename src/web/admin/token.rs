//! The operator's token: the admin listener asks for it over TCP.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The shortest token, bytes. `head -c 32 /dev/urandom | base64` has 44.
const SHORTEST: usize = 16;
/// The longest token, bytes; more is another file.
const LONGEST: usize = 1024;

/// The mode bits by which others than owner and group may read or write the file.
const OPEN_TO_OTHERS: u32 = 0o007;

/// The hash of a token: the token itself is not kept.
#[derive(Clone, Copy)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    /// Reads the token from the first line of a file; `None` for an empty path.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or what it holds is too short or too long for a token. The error names the setting.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        read_text(path).map(|text| Some(Self::of(text.as_bytes()))).map_err(|failed| {
            let text = format!("server.admin_token_file = {}: {failed}", path.display());
            io::Error::new(failed.kind(), text)
        })
    }

    fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Whether a request's `Authorization` header has this token (RFC 6750, section 2.1).
    pub fn is_in(self, authorization: &[u8]) -> bool {
        let Some((scheme, token)) = authorization.split_at_checked(7) else { return false };
        scheme.eq_ignore_ascii_case(b"Bearer ")
            && self.0.ct_eq(&Self::of(token.trim_ascii()).0).into()
    }
}

/// The token as its file has it, for a client.
///
/// # Errors
///
/// As [`AdminToken::read`].
pub fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    let mode = file.metadata()?.mode() & 0o777;
    if mode & OPEN_TO_OTHERS != 0 {
        let text =
            format!("its mode is {mode:03o}, so every user may have the token: chmod 600 or 640");
        return Err(io::Error::other(text));
    }
    file.take(LONGEST as u64 + 2).read_to_string(&mut text)?;
    let token = text.trim();
    if token.contains('\n') {
        return Err(io::Error::other("has more than one line"));
    }
    if !(SHORTEST..=LONGEST).contains(&token.len()) {
        let text = format!("a token has between {SHORTEST} and {LONGEST} bytes");
        return Err(io::Error::other(text));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_token_is_found_behind_bearer_and_nowhere_else() {
        let token = AdminToken::of(b"0123456789abcdef");
        for good in
            ["Bearer 0123456789abcdef", "bearer 0123456789abcdef", "BEARER  0123456789abcdef "]
        {
            assert!(token.is_in(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
            "Bearer 0123456789abcdeg",
        ] {
            assert!(!token.is_in(bad.as_bytes()), "{bad}");
        }
    }

    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn a_file_without_a_token_is_refused_by_the_name_of_its_setting() {
        assert!(AdminToken::read(Path::new("")).is_ok_and(|token| token.is_none()));
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("token");
        for bad in
            ["", "short", "two lines of text\nof which neither is a token", &"x".repeat(1025)]
        {
            write(&path, bad);
            let refused = AdminToken::read(&path).err().expect(bad).to_string();
            assert!(refused.starts_with("server.admin_token_file = "), "{refused}");
        }
        write(&path, "0123456789abcdef\n");
        let token = AdminToken::read(&path).unwrap().unwrap();
        assert!(token.is_in(b"Bearer 0123456789abcdef"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = AdminToken::read(&path).err().unwrap().to_string();
        assert!(refused.contains("its mode is 644"), "{refused}");
    }
}
