//! The items of a device that is no longer known, or that drops some of them. They are taken out step by step.

use std::collections::VecDeque;

use super::item::Item;
use super::mailbox::Place;
use super::notice_queue::Notice;

/// Items in order.
#[derive(Debug)]
pub enum Remaining {
    Mailbox(VecDeque<Place>),
    Notices(VecDeque<Box<Notice>>),
}

impl Remaining {
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        let (places, notices) = match self {
            Self::Mailbox(places) => (Some(places), None),
            Self::Notices(notices) => (None, Some(notices)),
        };
        let items = places.into_iter().flatten().filter_map(|place| place.item.as_ref());
        items.chain(notices.into_iter().flatten().map(|notice| &notice.item))
    }
}

impl Iterator for Remaining {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        match self {
            Self::Mailbox(places) => {
                std::iter::from_fn(|| places.pop_front()).find_map(|place| place.item)
            }
            Self::Notices(notices) => notices.pop_front().map(|notice| notice.item),
        }
    }
}
