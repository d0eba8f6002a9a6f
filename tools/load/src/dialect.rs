//! The protocol of the server under test: the relay's own, or that of another server.

use clap::ValueEnum;

use crate::cli::Mode;
use crate::messages::{self, Id, MessageTemplate, Text};
use crate::nats;

/// The protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// The whole protocol.
    Sealpost,
    /// Of the protocol only Register, Send, Receive and Ack, without anything optional.
    Plain,
    /// NATS over WebSocket.
    Nats,
}

impl Dialect {
    /// Whether the server acknowledges messages to the sender.
    pub fn has_acks(self) -> bool {
        self != Self::Nats
    }

    /// A message as this server takes it; see [`MessageTemplate::new`].
    pub fn template(self, sender: usize, from: &Id, payload: usize, ttl: u64) -> MessageTemplate {
        match self {
            Self::Sealpost | Self::Plain => MessageTemplate::new(sender, from, payload, ttl),
            Self::Nats => nats::template(Text::new(sender, from, &messages::data(payload), ttl)),
        }
    }

    /// Checks that the mode is possible with this protocol.
    ///
    /// # Errors
    ///
    /// Names the missing capability.
    pub fn check(self, mode: &Mode) -> Result<(), String> {
        let missing = match mode {
            _ if self == Self::Sealpost => return Ok(()),
            Mode::Pairs(pairs) if !pairs.resumable => return Ok(()),
            Mode::Idle(idle) if !idle.resumable && idle.large.is_none() => return Ok(()),
            Mode::Pairs(_) => "--resumable",
            Mode::Idle(idle) if idle.resumable => "--resumable",
            Mode::Idle(_) => "--large",
            Mode::Offline(_) | Mode::Drain(_) => "the queues of `offline` and `drain`",
            Mode::Fanout(_) => "`fanout`",
            Mode::Hostile(_) => "`hostile`",
            Mode::Expiry(_) => "the queues of `expiry`",
            Mode::Attack(_) => "the queues of `attack`",
        };
        let value = self.to_possible_value();
        let name = value.as_ref().map_or("this", |value| value.get_name());
        Err(format!("--dialect {name} is for `pairs` and `idle`: it is without {missing}"))
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::Cli;
    use clap::Parser as _;

    fn check(line: &str) -> Result<(), String> {
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        cli.common.dialect.check(&cli.mode)
    }

    #[test]
    fn peers_are_asked_for_nothing_that_they_have_not() {
        for peer in ["nats", "plain"] {
            let check = |rest: &str| check(&format!("load --dialect {peer} {rest}"));
            for possible in ["pairs --in-flight 16", "pairs --rate 100", "idle"] {
                assert_eq!(check(possible), Ok(()), "{peer} {possible}");
            }
            for refused in
                ["pairs --resumable", "idle --resumable", "idle --large 9", "offline", "fanout"]
            {
                let why = check(refused).unwrap_err();
                assert!(why.contains(peer), "{peer} {refused}: {why}");
            }
        }
    }

    #[test]
    fn the_relay_is_asked_for_everything() {
        for mode in ["pairs --resumable", "idle --large 9", "offline", "drain --tokens t", "fanout"]
        {
            assert_eq!(check(&format!("load {mode}")), Ok(()), "{mode}");
        }
    }
}
