//! How a draft becomes a commit.

use std::sync::Arc;
use std::time::SystemTime;

use rvf_cow::{BadRow, Batch, Fields};
use serde_json::Map;

use super::draft::{Content, DraftBytes};
use super::{Draft, NameKind, name_kind, program_stem};
use crate::convert::{self, store_fields};
use crate::data::rows::{self, Format, ReadOptions};
use crate::data::{npy, text};
use crate::embedding::{self, Options, Payload};
use crate::errno::Error;
use crate::node::{Place, ProgramKind};
use crate::store_dir::StoreDir;

/// When a draft is asked to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A close that counts, or fsync.
    Close,
    /// A rename from a temporary name.
    Rename,
    /// The last close of all, whose result nobody sees.
    Last,
}

impl StoreDir {
    /// Whether closing this draft now has work to do.
    #[must_use]
    pub fn has_work(&self, draft: &Draft, moment: Moment) -> bool {
        let state = draft.state.lock();
        !state.removed
            && !state.abandoned
            && (state.dirty || (moment == Moment::Rename && state.receipt.is_none()))
    }

    /// Commits a draft under its name, or under the one it is about to get. Runs on a worker: it parses, locks, writes
    /// and syncs.
    ///
    /// # Errors
    /// Whatever the content or the store refuses; the sentence is in `error` then, and nothing is changed.
    pub fn commit(
        self: &Arc<Self>,
        draft: &Arc<Draft>,
        moment: Moment,
        new_name: Option<&str>,
    ) -> Result<(), Error> {
        let _turn = draft.committing.lock();
        if !self.has_work(draft, moment) {
            return Ok(());
        }
        let name = new_name.map_or_else(|| draft.name(), str::to_owned);
        let kind = name_kind(draft.place, &name)?;
        if kind == NameKind::Temporary {
            return Ok(());
        }
        let broken = {
            let mut state = draft.state.lock();
            state.dirty = false;
            state.broken.clone()
        };
        let result = match broken {
            Some(why) => Err(Error::invalid(format!("a write to it failed, so nothing was taken: {why}"))),
            None => self.writable().and_then(|()| self.commit_as(draft, &name, kind)),
        };
        let mut state = draft.state.lock();
        match result {
            Ok(receipt) => {
                state.refused = false;
                state.touched = false;
                if let Some(receipt) = receipt {
                    state.receipt = Some(receipt.into_bytes().into());
                    state.content = Content::Memory(Vec::new());
                    state.time = SystemTime::now();
                }
                drop(state);
                if moment != Moment::Rename {
                    self.drafts.show(draft);
                }
                Ok(())
            }
            Err(error) => {
                state.refused = true;
                drop(state);
                if moment != Moment::Rename {
                    self.drafts.hide(draft);
                }
                self.refuse(draft.place, &name, &error);
                self.events.push(
                    "refused",
                    self.snap().view.epoch(),
                    &[("name", &name), ("reason", &error.to_string())],
                );
                Err(error)
            }
        }
    }

    fn commit_as(
        self: &Arc<Self>,
        draft: &Arc<Draft>,
        name: &str,
        kind: NameKind,
    ) -> Result<Option<String>, Error> {
        let content = draft.bytes()?;
        match kind {
            NameKind::Rows(format) => self.commit_rows(name, format, content).map(Some),
            NameKind::Ids => {
                let ids = npy::Npy::parse(content.as_slice())?.to_u64()?;
                tracing::debug!(name, ids = ids.len(), "ids wait for their file");
                Ok(None)
            }
            NameKind::Vector(id) => {
                let dimension = self.snap().view.dimension();
                let vectors = text::parse_one(content.as_slice(), dimension)?;
                let batch = Batch {
                    dimension,
                    ids: Some(vec![id]),
                    vectors,
                    metadata: Vec::new(),
                    on_bad_row: BadRow::Refuse,
                };
                self.store.ingest(&batch, &rvf_cow::NoProgress)?;
                Ok(None)
            }
            NameKind::Record(id) => {
                if self.snap().view.resolved().find(id).is_none() {
                    return Err(Error::invalid(format!("there is no vector {id}; write vectors/{id} first")));
                }
                let fields = parse_record(content.as_slice(), id)?;
                self.store.put_metadata(id, &fields)?;
                Ok(None)
            }
            NameKind::Program(kind) => self.commit_program(draft, name, kind, content),
            NameKind::Options => {
                let options = embedding::parse_options(content.as_slice())?;
                tracing::debug!(name, options = options.len(), "options wait for their program");
                Ok(None)
            }
            NameKind::Temporary => Ok(None),
        }
    }

    fn commit_program(
        self: &Arc<Self>,
        draft: &Arc<Draft>,
        name: &str,
        kind: ProgramKind,
        content: DraftBytes,
    ) -> Result<Option<String>, Error> {
        let place = Place::Programs(kind);
        let stem = program_stem(kind, name);
        let beside = [format!("{stem}.json"), format!("{name}.json")];
        let options_draft = beside.iter().find_map(|name| self.drafts.named(place, name));
        let mut options = match &options_draft {
            Some(options) => embedding::parse_options(options.bytes()?.as_slice())?,
            None => Map::new(),
        };
        // What was said of this very file counts more.
        options.extend(draft.options().into_iter().map(|(key, value)| (key, value.into())));
        let options = Options::from_keys(kind, &options)?;
        let program = content.as_slice();
        let payload = Payload::new(program, &options)
            .map_err(|error| embedding::misplaced(kind, program).unwrap_or(error))?;
        payload.embed(&self.store, stem)?;
        if let Some(options) = options_draft {
            self.drafts.remove(&options);
        }
        Ok(None)
    }

    fn commit_rows(
        self: &Arc<Self>,
        name: &str,
        format: Format,
        content: DraftBytes,
    ) -> Result<String, Error> {
        let job = self.job(format!("ingest {name}"));
        let dimension = self.snap().view.dimension();
        let ids_draft = (format == Format::Npy)
            .then(|| {
                self.drafts.named(
                    Place::Ingest,
                    &format!("{}.ids.npy", name.get(..name.len().saturating_sub(4)).unwrap_or(name)),
                )
            })
            .flatten()
            .filter(|ids| !ids.is_receipt());
        let mut options = ReadOptions::new(dimension);
        if let Some(ids) = &ids_draft {
            options.ids = Some(npy::Npy::parse(ids.bytes()?.as_slice())?.to_u64()?);
        }
        let mut rows = rows::read(format, content.as_slice(), &options)?;
        let size = content.as_slice().len();
        drop(content);
        let count = rows.len();
        let with_ids = rows.ids.is_some();
        let ignored = std::mem::take(&mut rows.ignored);
        let batch = convert::batch(rows);
        let report = self.store.ingest(&batch, &job)?;
        drop(job);
        let mut receipt = format!(
            "name: {name}\nbytes: {size}\naccepted: {}\nrejected: {}\nepoch: {}\n",
            report.accepted, report.rejected, report.epoch
        );
        match report.first_id {
            Some(first) if with_ids => receipt.push_str(&format!("ids: given, from {first}\n")),
            Some(first) => {
                let last = first.saturating_add((count as u64).saturating_sub(1));
                receipt.push_str(&format!("ids: {first}-{last}\n"));
            }
            None => {}
        }
        if !ignored.is_empty() {
            receipt.push_str(&format!("ignored: {}\n", ignored.join(", ")));
        }
        if let Some(ids) = ids_draft {
            let mut state = ids.state.lock();
            state.receipt = Some(format!("used by: {name}\nepoch: {}\n", report.epoch).into_bytes().into());
            state.content = Content::Memory(Vec::new());
        }
        Ok(receipt)
    }
}

fn parse_record(bytes: &[u8], id: u64) -> Result<Fields, Error> {
    Ok(store_fields(crate::data::json_rows::parse_record(bytes, Some(id))?))
}
