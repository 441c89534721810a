//! `user.rvf.*`: type, id, hash and offset of what is a view of a segment, and identity of what is a view of the store.

use crate::errno::Error;
use crate::json;
use crate::node::{Item, Node, QueryFile};
use crate::snapshot::{Part, Snap};
use crate::tree::Tree;

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
        let found = self.xattrs(ino)?.into_iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| value.into_bytes()).ok_or(Error::NoAttribute)
    }

    /// The names of all extended attributes.
    ///
    /// # Errors
    /// [`Error::Stale`] when the node is gone.
    pub fn listxattr(&self, ino: u64) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        for (name, _) in self.xattrs(ino)? {
            out.extend_from_slice(name.as_bytes());
            out.push(0);
        }
        Ok(out)
    }

    fn xattrs(&self, ino: u64) -> Result<Vec<(&'static str, String)>, Error> {
        let Node::In(id, item) = self.node(ino)? else { return Ok(Vec::new()) };
        let Ok(dir) = self.store(id) else { return Ok(Vec::new()) };
        Ok(match item {
            Item::Segment(key)
            | Item::SegmentFile(key, _)
            | Item::Model(key)
            | Item::Signature(key)
            | Item::Program(key, _) => dir.snap().part(key).map(of_part).unwrap_or_default(),
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
