//! A forwarder at work under a service manager: what that one is told of it.

use std::sync::Arc;

use crate::observe::notice::Notice;

use super::confine::Confinement;
use super::manager::Manager;
use super::running::Running;
use super::thread::ReactorThread;

impl Running {
    /// This one is told from now on, or once another process has told it that this one is the
    /// service. Every listener accepts already.
    pub(super) fn serve_under(&mut self, manager: Manager, is_service: bool) {
        self.manager = manager;
        if is_service {
            self.manager.begun();
            self.manager.keep(&self.held, &self.log);
        } else {
            self.manager.stand_by();
        }
    }

    /// The manager heeds this process from now on.
    pub(super) fn become_service(&mut self) {
        if self.manager.is_heeded() {
            return;
        }
        self.manager.begun();
        self.manager.keep(&self.held, &self.log);
        if let Some((who, reply)) = self.next_upgrade.take() {
            self.begin(who, reply);
        }
    }

    /// What the kernel denies this process from now on, and has since its start.
    pub(super) fn confine(&mut self, confinement: Confinement) {
        if confinement.is_any() {
            self.log.notice(Notice::Confined {
                confinement: confinement.to_string(),
            });
        }
        self.steering.confined(&confinement);
        self.confinement = Arc::new(confinement);
    }

    /// Says what is due.
    pub(super) fn look_after_service(&mut self) {
        let (upstreams, held, generation) = (&self.upstreams, &self.held, self.generation);
        let status = || status(held.locals().len(), generation);
        self.manager
            .ready_if(|| upstreams.firsts_are_known(), status);
        let wires = self.reactors.values().map(ReactorThread::wire);
        self.manager.look_after(wires);
        self.keep_what_was_missed();
    }

    /// The last reload that was asked for is over, whatever came of it.
    pub(super) fn tell_reloaded(&mut self) {
        self.manager.keep(&self.held, &self.log);
        let (held, generation) = (&self.held, self.generation);
        self.manager
            .reloaded(|| status(held.locals().len(), generation));
    }
}

/// How things are, in a line.
fn status(listeners: usize, generation: u64) -> String {
    let plural = if listeners == 1 { "" } else { "s" };
    format!("forwarding: {listeners} listener{plural}, configuration {generation}")
}
