//! Who has read a conversation so far: the next turn is best asked of whoever did, because it need not read it again.
//!
//! A provider keeps what it computed of a prompt for the same requester's next one. This side remembers which provider
//! that was, by a digest over the messages; nothing of it is ever sent. A wrong guess costs a prefill, never an answer.

use std::collections::{BTreeMap, VecDeque};

use crypto::{Digest, Hasher, PeerId};
use protocol::{ChatMessage, Input, JobSpec, Role};

/// Conversations remembered; the longest unused is forgotten.
const MAX_CONVERSATIONS: usize = 1024;

/// Which provider answered last in which conversation.
#[derive(Debug, Default)]
pub(crate) struct Affinity {
    providers: BTreeMap<Digest, PeerId>,
    /// The same digests, the oldest first.
    order: VecDeque<Digest>,
}

impl Affinity {
    /// Lets a job that goes on with a conversation prefer whoever answered it last, unless it says what it prefers.
    pub(crate) fn prefer(&self, spec: &mut JobSpec) {
        if spec.preference.peer.is_none() && spec.provider.is_none() {
            spec.preference.peer = known(&spec.input).and_then(|digest| self.providers.get(&digest)).copied();
        }
    }

    /// A provider has answered.
    pub(crate) fn served(&mut self, input: &Input, answer: String, provider: PeerId) {
        let Input::Chat(chat) = input else { return };
        let answer = ChatMessage::new(Role::Assistant, answer);
        let digest = digest(chat.messages.iter().chain([&answer]));
        if self.providers.insert(digest, provider).is_some() {
            self.order.retain(|known| *known != digest);
        }
        self.order.push_back(digest);
        if self.order.len() > MAX_CONVERSATIONS
            && let Some(oldest) = self.order.pop_front()
        {
            self.providers.remove(&oldest);
        }
    }
}

/// What of a chat has been answered before: all up to the last word of the other side.
fn known(input: &Input) -> Option<Digest> {
    let Input::Chat(chat) = input else { return None };
    let last = chat.messages.iter().rposition(|message| message.role == Role::Assistant)?;
    Some(digest(&chat.messages[..=last]))
}

fn digest<'a>(messages: impl IntoIterator<Item = &'a ChatMessage>) -> Digest {
    let part = |hasher: Hasher, message: &ChatMessage| {
        hasher.part(&[message.role as u8]).part(message.content.as_bytes())
    };
    messages.into_iter().fold(Hasher::new("conversation"), part).finish()
}

#[cfg(test)]
mod tests {
    use protocol::Timestamp;

    use super::*;
    use crate::request::JobRequest;

    fn spec(messages: &[(Role, &str)]) -> JobSpec {
        let messages = messages.iter().map(|(role, text)| ChatMessage::new(*role, *text)).collect();
        let request = JobRequest { messages, ..JobRequest::default() };
        request.spec(Timestamp(0), None).unwrap()
    }

    fn peer(seed: u8) -> PeerId {
        crypto::SecretKey::from_seed(&[seed; 32]).peer_id()
    }

    fn preferred(affinity: &Affinity, messages: &[(Role, &str)]) -> Option<PeerId> {
        let mut spec = spec(messages);
        affinity.prefer(&mut spec);
        spec.preference.peer
    }

    const QUESTION: (Role, &str) = (Role::User, "Why?");
    const ANSWER: (Role, &str) = (Role::Assistant, "Because.");
    const NEXT: (Role, &str) = (Role::User, "Really?");

    #[test]
    fn the_next_turn_goes_to_whoever_gave_the_last_answer() {
        let mut affinity = Affinity::default();
        assert_eq!(preferred(&affinity, &[QUESTION, ANSWER, NEXT]), None);
        affinity.served(&spec(&[QUESTION]).input, ANSWER.1.to_owned(), peer(2));
        assert_eq!(preferred(&affinity, &[QUESTION, ANSWER, NEXT]), Some(peer(2)));
        assert_eq!(preferred(&affinity, &[QUESTION]), None, "a new conversation");
        assert_eq!(preferred(&affinity, &[QUESTION, (Role::Assistant, "No."), NEXT]), None, "another answer");
        affinity.served(&spec(&[QUESTION, ANSWER, NEXT]).input, "Yes.".to_owned(), peer(3));
        assert_eq!(
            preferred(&affinity, &[QUESTION, ANSWER, NEXT, (Role::Assistant, "Yes."), QUESTION]),
            Some(peer(3))
        );
    }

    #[test]
    fn who_says_what_it_wants_gets_that() {
        let mut affinity = Affinity::default();
        affinity.served(&spec(&[QUESTION]).input, ANSWER.1.to_owned(), peer(2));
        let mut named = spec(&[QUESTION, ANSWER, NEXT]);
        named.provider = Some(peer(4));
        affinity.prefer(&mut named);
        assert_eq!(named.preference.peer, None);
        let mut liked = spec(&[QUESTION, ANSWER, NEXT]);
        liked.preference.peer = Some(peer(5));
        affinity.prefer(&mut liked);
        assert_eq!(liked.preference.peer, Some(peer(5)));
    }

    #[test]
    fn conversations_are_forgotten_in_the_order_of_their_last_turn() {
        let mut affinity = Affinity::default();
        let served = |affinity: &mut Affinity, number: usize| {
            let question = format!("{number}");
            affinity.served(&spec(&[(Role::User, &question)]).input, "ok".to_owned(), peer(2));
        };
        (0..MAX_CONVERSATIONS).for_each(|number| served(&mut affinity, number));
        served(&mut affinity, 0);
        served(&mut affinity, MAX_CONVERSATIONS);
        let known = |number: &str| {
            preferred(&affinity, &[(Role::User, number), (Role::Assistant, "ok"), NEXT]).is_some()
        };
        assert!(known("0") && !known("1") && known("2"));
        assert_eq!(affinity.providers.len(), MAX_CONVERSATIONS);
    }
}
