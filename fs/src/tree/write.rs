//! Writing.

use std::path::Path;
use std::sync::Arc;

use super::{Caller, Tree};
use crate::ctl;
use crate::errno::Error;
use crate::handle::Body;
use crate::node::Place;
use crate::store_dir::StoreDir;

impl Tree {
    /// Writes. The answer may come from another thread, and later.
    pub fn write(
        self: &Arc<Self>,
        fh: u64,
        offset: u64,
        data: &[u8],
        caller: Caller,
        answer: impl FnOnce(Result<usize, Error>) + Send + 'static,
    ) {
        let handle = match self.handles.get(fh) {
            Ok(handle) => handle,
            Err(error) => return answer(Err(error)),
        };
        if !handle.write {
            return answer(Err(Error::BadHandle));
        }
        let Some(dir) = handle.dir.clone() else { return answer(Err(Error::BadHandle)) };
        let len = data.len();
        let first = handle.mark_used();
        handle.writers.lock().note(caller.thread);
        match &handle.body {
            // What another program has committed before this request began is in its answer. A kept descriptor learns of it
            // from the watch.
            Body::Request(..) if first && dir.store.is_behind() => {
                let (tree, data) = (self.clone(), data.to_vec());
                self.pool.run(move || {
                    if let Err(error) = dir.store.refresh() {
                        tracing::debug!(%error, "the file cannot be looked at; what was read of it stays");
                    }
                    tree.ask(&handle, offset, &data, answer);
                });
            }
            Body::Request(..) => self.ask(&handle, offset, data, answer),
            Body::Setting(session, setting, pending) => {
                let mut pending = pending.lock();
                let result = if offset.saturating_add(len as u64) > 64 * 1024 {
                    Err(Error::TooLarge { what: "a default has at most 65536 bytes".into() })
                } else {
                    put(&mut pending.bytes, offset, data);
                    if pending.bytes.ends_with(b"\n") {
                        pending.applied = pending.bytes.len();
                        session.set(*setting, &pending.bytes)
                    } else {
                        Ok(())
                    }
                };
                answer(result.map(|()| len));
            }
            Body::Ctl(pending) => {
                let mut pending = pending.lock();
                if pending.len() + len > ctl::MAX_LINE {
                    pending.clear();
                    let error =
                        Error::TooLarge { what: format!("a line has at most {} bytes", ctl::MAX_LINE) };
                    dir.refuse(Place::Top, "ctl", &error);
                    return answer(Err(error));
                }
                pending.extend_from_slice(data);
                let Some(end) = pending.iter().rposition(|byte| *byte == b'\n') else {
                    return answer(Ok(len));
                };
                let rest = pending.split_off(end + 1);
                let lines = std::mem::replace(&mut *pending, rest);
                drop(pending);
                self.run_verbs(&dir, handle.user, lines, move |result| answer(result.map(|()| len)));
            }
            Body::Draft(draft) => {
                let beside = dir.store.path().parent().unwrap_or(Path::new("."));
                let mut result = draft.write(offset, data, beside);
                if result.is_ok() && first && offset == 0 {
                    result = draft.judge_early(data, dir.snap().view.dimension());
                    if result.is_err() {
                        dir.drafts.hide(draft);
                    }
                }
                if let Err(error) = &result {
                    dir.refuse(draft.place, &draft.name(), error);
                }
                answer(result.map(|()| len));
            }
            Body::Part(part) => {
                let (part, data) = (part.clone(), data.to_vec());
                // What is written is compared with what it is a copy of, which may have to come from the disk.
                self.commits.run(move || {
                    let result = super::branch_copy::write_part(&dir, &part, offset, &data);
                    answer(result.map(|()| len));
                });
            }
            _ => answer(Err(Error::BadHandle)),
        }
    }

    /// Runs lines that `user` wrote to `ctl`, one after another; the first that fails ends it.
    pub(super) fn run_verbs(
        self: &Arc<Self>,
        dir: &Arc<StoreDir>,
        user: u32,
        lines: Vec<u8>,
        answer: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) {
        let parsed = std::str::from_utf8(&lines)
            .map_err(|_| Error::invalid("a verb is UTF-8 text"))
            .and_then(|text| {
                text.lines()
                    .filter_map(|line| ctl::parse(line).transpose())
                    .collect::<Result<Vec<_>, Error>>()
            });
        let verbs = match parsed {
            Ok(verbs) => verbs,
            Err(error) => {
                dir.refuse(Place::Top, "ctl", &error);
                return answer(Err(error));
            }
        };
        let (tree, dir) = (self.clone(), dir.clone());
        self.commits.run(move || {
            for (verb, background) in verbs {
                if background {
                    let (apart, dir) = (tree.clone(), dir.clone());
                    tree.commits.run(move || {
                        if let Err(error) = ctl::run(&apart, &dir, user, &verb) {
                            dir.refuse(Place::Top, "ctl", &error);
                            dir.events.push(
                                "failed",
                                dir.snap().view.epoch(),
                                &[("reason", &error.to_string())],
                            );
                        }
                    });
                } else if let Err(error) = ctl::run(&tree, &dir, user, &verb) {
                    dir.refuse(Place::Top, "ctl", &error);
                    return answer(Err(error));
                }
            }
            answer(Ok(()));
        });
    }
}

fn put(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let start = offset as usize;
    let end = start + data.len();
    if bytes.len() < end {
        bytes.resize(end, b' ');
    }
    bytes[start..end].copy_from_slice(data);
}
