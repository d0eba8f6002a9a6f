//! The process ends if a core actor or the store's writer panics: a relay that accepts messages and loses them would be
//! worse than none. The service manager starts the relay again, and no message that was acked is lost.

use std::fmt;

/// The exit status after such a panic (EX_SOFTWARE of sysexits.h).
pub const EXIT_CODE: i32 = 70;

/// A guard, held while the code runs that must not panic. It ends the process while the stack unwinds, before anything
/// that the panic left broken is used again. The text is logged.
pub struct AbortOnPanic<'a>(pub fmt::Arguments<'a>);

impl Drop for AbortOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("{}", self.0);
            log::logger().flush();
            std::process::exit(EXIT_CODE);
        }
    }
}
