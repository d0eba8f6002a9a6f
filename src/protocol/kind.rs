//! The types of a client's frames and their spelling on the wire. (protocol: Core messages and after)

macro_rules! kinds {
    ($($kind:ident),*) => {
        /// The `type` of a frame that a client may send.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind {
            $(#[doc = concat!("The type `", stringify!($kind), "`.")] $kind,)*
        }

        impl Kind {
            /// The `type` as the wire spells it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => stringify!($kind),)*
                }
            }

            /// Reads a `type`; `None` for every other text.
            pub(super) fn parse(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($kind) => Some(Self::$kind),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    Register, Unregister, Send, Ack, Ping, Pong,
    AuthRequest, AuthResponse, AuthVerify, AuthSuccess,
    KeyRotationUpdate, KeyRotationAck,
    Status
}
