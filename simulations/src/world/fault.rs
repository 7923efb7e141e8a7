//! What goes wrong: hosts that die and come back, cuts that are made and mended.
//!
//! A host that dies closes its connections as an operating system does for a dead process, so the others learn of it
//! after one transit. A cut says nothing: both ends wait as long as a transport waits, and then give up.

use super::*;

impl World<'_> {
    pub(super) fn on_fault(&mut self, index: usize) {
        match &self.scenario.faults[index] {
            Fault::Kill { group, count, back_after, after_outputs, .. } => {
                for host in self.busiest(group, *count) {
                    match *after_outputs {
                        Some(left) => drop(self.fuses.insert(host, Fuse { left, back_after: *back_after })),
                        None => self.kill(host, *back_after),
                    }
                }
            }
            Fault::Partition { group, count, lasts, .. } => {
                let side = self.chance.sample(self.groups[group.as_str()].clone(), *count);
                self.links.cut(index, side.into_iter().collect());
                self.doubt();
                self.later(self.now.after(*lasts), Happening::Heal(index));
            }
        }
    }

    pub(super) fn on_heal(&mut self, index: usize) {
        self.links.heal(index);
        let whole = self.streams.iter().filter(|(_, s)| !self.links.is_cut(s.requester, s.provider));
        let whole: Vec<_> = whole.map(|(id, _)| id).collect();
        for stream in whole {
            for (to, bytes) in self.streams.release(stream) {
                self.carry(stream, to, bytes);
            }
        }
    }

    /// Nothing came for as long as a transport waits: if nothing can come still, both ends give up.
    pub(super) fn on_silent(&mut self, id: StreamId) {
        let Some(stream) = self.streams.find(id) else { return };
        if !self.links.is_cut(stream.requester, stream.provider) {
            return;
        }
        for (_, bytes) in self.streams.release(id) {
            self.lose(&bytes);
        }
        for side in [Side::Provider, Side::Requester] {
            let at = self.streams.queue(id, side, self.now);
            self.later(at, Happening::Lost { stream: id, side });
        }
    }

    /// The living ones with the most work; where that is equal, chance decides.
    fn busiest(&mut self, group: &str, count: usize) -> Vec<HostId> {
        let members = self.groups[group].clone();
        let living = members.into_iter().filter(|host| self.hosts[host.0].is_up()).collect::<Vec<_>>();
        let all = living.len();
        let mut drawn = self.chance.sample(living, all);
        drawn.sort_by_key(|host| std::cmp::Reverse(self.hosts[host.0].load()));
        drawn.truncate(count);
        drawn
    }

    /// Counts an output. True when the host died instead of performing it.
    pub(super) fn burns(&mut self, host: HostId) -> bool {
        let Some(fuse) = self.fuses.get_mut(&host) else { return false };
        let back_after = fuse.back_after;
        match fuse.left.checked_sub(1) {
            Some(left) => fuse.left = left,
            None => self.kill(host, back_after),
        }
        !self.hosts[host.0].is_up()
    }

    fn kill(&mut self, host: HostId, back_after: Option<u64>) {
        self.fuses.remove(&host);
        // What it had decided and not yet done is forgotten with it; the watch has to know what that was.
        while let Some(output) = self.hosts[host.0].poll_output() {
            self.watch.on_swallowed(&output);
        }
        self.hosts[host.0].fall();
        for job in self.jobs.values_mut().filter(|job| job.host == host && job.end.is_none()) {
            job.end = Some((self.now, End::Orphaned));
        }
        self.unplug(host);
        if let Some(after) = back_after {
            self.later(self.now.after(after), Happening::Rise(host));
        }
    }

    /// Both ends of everything that the host was on: its own is gone, the others will learn of it.
    fn unplug(&mut self, host: HostId) {
        let streams: Vec<_> =
            self.streams.iter().map(|(id, stream)| (id, stream.requester, stream.provider)).collect();
        for (id, requester, provider) in streams {
            for (side, end) in [(Side::Requester, requester), (Side::Provider, provider)] {
                if end != host {
                    continue;
                }
                for (_, bytes) in self.streams.release(id) {
                    self.lose(&bytes);
                }
                if self.streams.close(id, side) {
                    self.break_later(id, side.opposite());
                }
            }
        }
    }
}
