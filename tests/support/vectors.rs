//! The JSON blocks of a page, each with the comment that says what it is; the comment at the top of docs/protocol.md
//! defines them.

/// One vector: the text of its comment, the JSON block below it, if there is one, and its line.
pub struct Vector {
    pub comment: String,
    pub json: Option<String>,
    pub line: usize,
}

impl Vector {
    /// The text behind the name of its kind; `None` if it is of another kind.
    pub fn of_kind(&self, kind: &str) -> Option<&str> {
        self.comment.strip_prefix(kind)?.strip_prefix(' ')
    }

    pub fn json(&self) -> &str {
        self.json.as_deref().unwrap_or_else(|| panic!("line {}: no block follows", self.line))
    }
}

/// All vectors of a page. Panics at a JSON block without a vector.
pub fn vectors(page: &str) -> Vec<Vector> {
    let mut found: Vec<Vector> = Vec::new();
    let mut lines = page.lines().zip(1..).peekable();
    while let Some((text, line)) = lines.next() {
        let marked = text.strip_prefix("<!-- vector: ").and_then(|rest| rest.strip_suffix(" -->"));
        let block = match (marked, lines.peek()) {
            (Some(_), Some((next, _))) if *next == "```json" => lines.next().is_some(),
            (Some(_), _) => false,
            (None, _) => {
                assert_ne!(
                    text.trim(),
                    "```json",
                    "line {line}: no vector stands above this block"
                );
                continue;
            }
        };
        let json = block.then(|| {
            let inside = lines.by_ref().map(|(text, _)| text).take_while(|text| *text != "```");
            inside.collect::<Vec<_>>().join("\n")
        });
        found.push(Vector { comment: marked.unwrap_or_default().to_owned(), json, line });
    }
    found
}
