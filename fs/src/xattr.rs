//! `user.rvf.*`: type, id, hash and offset of what is a view of a segment, and identity of what is a view of the store.

use std::sync::Arc;

use crate::errno::Error;
use crate::node::{Item, Node, Place, QueryFile, SegmentKey};
use crate::snapshot::{Part, Snap};
use crate::store_dir::StoreDir;
use crate::tree::Tree;
use crate::{embedding, json, programs, signatures};

/// Attributes of programs that are not computed before somebody reads them.
const PROGRAM: [&str; 3] = ["user.rvf.arch", "user.rvf.digest", "user.rvf.signature"];

impl Tree {
    /// The value of an extended attribute.
    ///
    /// # Errors
    /// [`Error::NoAttribute`]; [`Error::NotSupported`] for ACLs, which makes copying tools fall back to mode bits, and
    /// for security labels, which makes `ls -l` ask once and not for every file.
    pub fn getxattr(&self, ino: u64, name: &str) -> Result<Vec<u8>, Error> {
        if name == "security.capability"
            && let Ok(Node::In(id, Item::QueryFile(session, QueryFile::In))) = self.node(ino)
            && let Some(session) = self.store(id).ok().and_then(|dir| dir.sessions.get(session))
        {
            session.knows_privileges(false);
        }
        if !name.starts_with("user.") {
            return Err(Error::NotSupported);
        }
        if !name.starts_with("user.rvf.") {
            return Err(Error::NoAttribute);
        }
        if let Some(value) = self.program_attribute(ino, name)? {
            return Ok(value.into_bytes());
        }
        let found = self.xattrs(ino)?.into_iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.into_bytes()).ok_or(Error::NoAttribute)
    }

    /// The names of all extended attributes.
    ///
    /// # Errors
    /// [`Error::Stale`] when the node is gone.
    pub fn listxattr(&self, ino: u64) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        let names = self.xattrs(ino)?.into_iter().map(|(name, _)| name);
        let more: &[&str] = if self.program(ino)?.is_some() { &PROGRAM } else { &[] };
        for name in names.chain(more.iter().copied()) {
            out.extend_from_slice(name.as_bytes());
            out.push(0);
        }
        Ok(out)
    }

    /// Sets an attribute: how a program that is being copied in is to be embedded, as `user.rvf.KEY`.
    ///
    /// # Errors
    /// [`Error::NotSupported`] for everything else, which copying tools take in silence; [`Error::Invalid`] for a value that
    /// is no text.
    pub fn setxattr(&self, ino: u64, name: &str, value: &[u8]) -> Result<(), Error> {
        let Node::In(id, item) = self.node(ino)? else { return Err(Error::NotSupported) };
        let Item::Draft(number) = item else { return Err(Error::NotSupported) };
        let Some(draft) = self.store(id)?.drafts.numbered(number) else { return Err(Error::NotSupported) };
        let (Place::Programs(kind), Some(key)) = (draft.place, name.strip_prefix("user.rvf.")) else {
            return Err(Error::NotSupported);
        };
        // `cp -a` of an image out of this tree brings along what it was: that follows from the bytes, and is not set.
        if !embedding::keys(kind).contains(&key) {
            return Err(Error::NotSupported);
        }
        let value =
            std::str::from_utf8(value).map_err(|_| Error::invalid(format!("{name} is UTF-8 text")))?;
        draft.set_option(key, value)
    }

    /// The program that a node is a view of.
    fn program(&self, ino: u64) -> Result<Option<(Arc<StoreDir>, SegmentKey)>, Error> {
        let Node::In(id, item) = self.node(ino)? else { return Ok(None) };
        let (Item::Program(key, _) | Item::Exec(key, _)) = item else { return Ok(None) };
        Ok(self.store(id).ok().map(|dir| (dir, key)))
    }

    /// What is found out about a program only when somebody asks.
    fn program_attribute(&self, ino: u64, name: &str) -> Result<Option<String>, Error> {
        if !PROGRAM.contains(&name) {
            return Ok(None);
        }
        let Some((dir, key)) = self.program(ino)? else { return Ok(None) };
        let snap = dir.snap();
        let Some(part) = snap.part(key) else { return Err(Error::Stale) };
        let value = match name {
            "user.rvf.digest" => dir.content(&snap, part).map(|content| {
                let mut text = "sha3-256:".to_owned();
                json::hex(&mut text, &content.digest);
                text
            }),
            "user.rvf.signature" => Some(signatures::of_program(&dir, &snap, part)),
            _ => programs::arch(&snap, part).map(str::to_owned),
        };
        Ok(value)
    }

    fn xattrs(&self, ino: u64) -> Result<Vec<(&'static str, String)>, Error> {
        let Node::In(id, item) = self.node(ino)? else { return Ok(Vec::new()) };
        let Ok(dir) = self.store(id) else { return Ok(Vec::new()) };
        Ok(match item {
            Item::Segment(key)
            | Item::SegmentFile(key, _)
            | Item::Model(key)
            | Item::Signature(key)
            | Item::Program(key, _)
            | Item::Exec(key, _) => dir.snap().part(key).map(of_part).unwrap_or_default(),
            Item::Top => of_store(&dir.snap(), "store"),
            Item::Whole(no) => dir.snap_of(no).map(|snap| of_store(&snap, "file")).unwrap_or_default(),
            Item::VectorsNpy(no) => {
                dir.snap_of(no).map(|snap| of_store(&snap, "vectors")).unwrap_or_default()
            }
            Item::IdsNpy(no) => dir.snap_of(no).map(|snap| of_store(&snap, "ids")).unwrap_or_default(),
            Item::MetadataJsonl(no) => {
                dir.snap_of(no).map(|snap| of_store(&snap, "metadata")).unwrap_or_default()
            }
            Item::Vector(vector) => {
                vec![("user.rvf.type", "vector".into()), ("user.rvf.id", vector.to_string())]
            }
            Item::MetadataJson(vector) => {
                vec![("user.rvf.type", "record".into()), ("user.rvf.id", vector.to_string())]
            }
            _ => Vec::new(),
        })
    }
}

fn of_part(part: &Part) -> Vec<(&'static str, String)> {
    let mut list = vec![
        ("user.rvf.offset", part.raw.start.to_string()),
        ("user.rvf.length", (part.raw.end - part.raw.start).to_string()),
    ];
    match part.segment() {
        Some(segment) => {
            let mut hash = String::new();
            json::hex(&mut hash, &segment.header.content_hash);
            list.push(("user.rvf.type", segment.kind().dir_name()));
            list.push(("user.rvf.id", segment.header.id().to_string()));
            list.push(("user.rvf.hash", hash));
        }
        None => list.push(("user.rvf.type", "gap".into())),
    }
    list
}

fn of_store(snap: &Snap, kind: &str) -> Vec<(&'static str, String)> {
    let mut list = vec![
        ("user.rvf.type", kind.to_owned()),
        ("user.rvf.offset", "0".into()),
        ("user.rvf.epoch", snap.view.epoch().to_string()),
        ("user.rvf.dimension", snap.view.dimension().to_string()),
    ];
    if let Some(located) = &snap.view.opened().manifest {
        let mut hash = String::new();
        // The manifest names everything else, so its hash stands for the whole state.
        json::hex(&mut hash, &located.segment.header.content_hash);
        list.push(("user.rvf.hash", hash));
        if let Some(identity) = &located.manifest.identity {
            let mut id = String::new();
            json::hex(&mut id, &identity.file_id);
            list.push(("user.rvf.id", id));
        }
    }
    list
}
