//! The process ends if a core actor or the store's writer panics: a relay that accepts messages and loses them would be
//! worse than none. The service manager starts the relay again, and no message that was acked is lost.

/// The exit status after such a panic (EX_SOFTWARE of sysexits.h).
pub const EXIT_CODE: i32 = 70;

/// A guard, held while the code runs that must not panic. It ends the process while the stack unwinds, before anything
/// that the panic left broken is used again. The name of what panicked is logged.
pub struct AbortOnPanic(pub &'static str);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!(part = self.0; "the core panicked, the process ends");
            log::logger().flush();
            std::process::exit(EXIT_CODE);
        }
    }
}
