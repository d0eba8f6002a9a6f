//! The types of frames and their spelling on the wire. (protocol: Core messages and after)

macro_rules! kinds {
    ($($kind:ident),*) => {
        /// The `type` of a frame that a client may send.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind {
            $(#[doc = concat!("The type `", stringify!($kind), "`.")] $kind,)*
        }

        impl Kind {
            /// Every type.
            pub const ALL: &[Self] = &[$(Self::$kind),*];
            /// The spelling of every type, in the same order.
            pub const NAMES: [&str; Self::ALL.len()] = [$(stringify!($kind)),*];

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

/// The type of a frame that the relay sends. The four `Auth*` are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outgoing {
    /// A message of another device.
    Receive,
    /// A `KeyRotationUpdate` of another device.
    KeyRotation,
    /// A `KeyRotationAck` of another device.
    KeyRotationAck,
    /// Any `Auth*` of another device.
    Auth,
    /// An `Ack`, with or without a status.
    Ack,
    /// A refusal, or the notice of an expiry.
    Error,
    /// The answer to a `Ping`.
    Pong,
    /// A `Ping` of the relay's own.
    Ping,
    /// The answer to a `Register`.
    RegisterResponse,
}

impl Outgoing {
    /// The names, in the order of the variants.
    pub const NAMES: [&str; 9] = [
        "Receive",
        "KeyRotationUpdate",
        "KeyRotationAck",
        "Auth",
        "Ack",
        "Error",
        "Pong",
        "Ping",
        "RegisterResponse",
    ];
}
