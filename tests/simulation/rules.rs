//! The settings that the rules read, as plain numbers.

use std::sync::Arc;
use std::time::Duration;

use sealpost::relay::mailbox::Credit;
use sealpost::relay::mailbox_quota::MailboxQuota;
use sealpost::settings::Settings;

#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub credit: Credit,
    pub quota: MailboxQuota,
    pub total_bytes: u64,
    /// Ttls are in seconds.
    pub default_ttl: u64,
    pub max_ttl: u64,
    pub key_rotation_ttl: u64,
    pub dedup_window: Duration,
    pub session_ttl: Duration,
    pub plain_ttl: Duration,
    /// Seconds.
    pub exchange_ttl: u64,
    pub devices: usize,
    /// A frame proves what was delivered longer ago.
    pub heartbeat_timeout: Duration,
}

impl Rules {
    pub fn settings(&self) -> Arc<Settings> {
        let mut settings = Settings::default();
        settings.delivery.window = self.credit.window;
        settings.delivery.bytes = self.credit.bytes as usize;
        settings.queue.messages = self.quota.messages;
        settings.queue.bytes = self.quota.bytes as usize;
        settings.queue.sender_share = self.quota.sender_share;
        settings.queue.unknown_share = self.quota.unknown_share;
        settings.limits.origin_share = self.quota.origin_share;
        settings.queue.total_bytes = self.total_bytes as usize;
        settings.queue.default_ttl = Duration::from_secs(self.default_ttl);
        settings.queue.max_ttl = Duration::from_secs(self.max_ttl);
        settings.queue.key_rotation_ttl = Duration::from_secs(self.key_rotation_ttl);
        settings.queue.dedup_window = self.dedup_window;
        settings.session.ttl = self.session_ttl;
        settings.session.plain_ttl = self.plain_ttl;
        settings.auth.exchange_ttl = Duration::from_secs(self.exchange_ttl);
        settings.limits.devices = self.devices;
        settings.heartbeat.timeout = self.heartbeat_timeout;
        settings.server.tcp_user_timeout = Duration::ZERO;
        Arc::new(settings)
    }
}
