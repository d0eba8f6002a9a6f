//! The watchdog of a service manager, and the disk: a commit that hangs, which a restart may help.

use std::time::Duration;

use crate::setup::Setup;
use crate::support::Device;
use crate::support::service_manager::ServiceManager;

const HANGS: &str = "STATUS=a commit of the queue does not end";

#[tokio::test]
async fn a_commit_that_hangs_ends_the_reports_to_the_watchdog() {
    if !Setup::can_inject() {
        return;
    }
    let data = tempfile::tempdir().expect("a directory");
    let manager = ServiceManager::new();
    // The start of a queue needs fewer syncs; each commit is one.
    let setup = Setup::on(data.path()).inject("fdatasync:delay_enter=6000000:when=30+");
    let setup = setup.with_watchdog(&manager, Duration::from_secs(1));
    let relay = setup.start().await;
    manager.until("WATCHDOG=1").await;
    let (mut sender, recipient) = (Device::plain(&relay).await, Device::resumable(&relay).await);
    let away = recipient.disconnect(&relay).await;
    for number in 1.. {
        sender.send_message(&away.id, number, serde_json::json!({})).await;
        tokio::select! {
            ack = sender.receive_any() => assert_eq!(ack["type"], "Ack", "in {ack}"),
            _ = manager.until(HANGS) => break,
        }
    }
    let rest = [manager.until(HANGS).await, manager.until(HANGS).await].concat();
    assert!(!rest.iter().any(|line| line.contains("WATCHDOG")), "{rest:?}");
}
