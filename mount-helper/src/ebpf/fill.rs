//! What the programs of ours get from the store.

use rvf_bpf::hot::{self, HotError, HotSet, Metric};
use rvf_bpf::{Builtin, ProgramType, maps};
use rvf_cow::View;

use super::load::{Counters, Loaded, Settings};
use super::{Args, sys};
use crate::run::Failure;

/// Vectors that answer where no number is given.
const HOT_VECTORS: usize = 256;

/// The hot vectors of a store, and how they were chosen.
#[derive(Clone, Debug)]
pub struct HotChoice {
    /// The vectors.
    pub set: HotSet,
    /// How many of them were chosen by access counts; the others come first in the file.
    pub counted: usize,
}

/// Takes the hottest vectors of a store.
///
/// # Errors
/// [`HotError`].
pub fn hot_set(view: &View, most: usize) -> Result<HotChoice, HotError> {
    let chosen = view.hottest(most);
    let shown = view.resolved();
    let rows: Vec<(u64, Vec<f32>)> = chosen
        .ids
        .iter()
        .filter_map(|id| {
            let bytes = shown.vector(shown.find(*id)?);
            let row = bytes.chunks_exact(4).filter_map(|v| v.first_chunk().map(|v| f32::from_le_bytes(*v)));
            Some((*id, row.collect()))
        })
        .collect();
    let metric = match view.metric() {
        rvf_cow::Metric::L2 => Metric::L2,
        rvf_cow::Metric::InnerProduct => Metric::InnerProduct,
        rvf_cow::Metric::Cosine => Metric::Cosine,
    };
    Ok(HotChoice { set: HotSet::new(metric, view.dimension(), &rows)?, counted: chosen.counted })
}

/// What is to be put into a program.
#[derive(Debug)]
pub(super) enum Plan {
    /// Nothing: it is not ours.
    None,
    /// Hot vectors.
    Distance { choice: HotChoice, live: u64, config: Vec<u8>, port: u16 },
    /// Members and rules.
    Filter { words: Vec<u64>, rules: Vec<(u16, [u32; 2])>, config: Vec<u8> },
    /// Ports.
    Ports { words: Box<[u64; 1024]>, ports: usize },
}

/// Works out what a program of ours gets.
pub(super) fn plan(
    builtin: Builtin,
    view: &View,
    args: &Args,
    interfaces: &sys::Interfaces,
) -> Result<Plan, Failure> {
    match builtin {
        Builtin::Distance => distance(view, args, interfaces),
        Builtin::Filter => filter(view, args, interfaces),
        Builtin::Ports => {
            if args.allow.is_empty() {
                return Err(Failure::usage("--allow names the ports to let through, as in --allow 53,7474"));
            }
            Ok(Plan::Ports { words: Box::new(maps::port_words(&args.allow)), ports: args.allow.len() })
        }
    }
}

fn complete(view: &View) -> Result<(), Failure> {
    view.complete().map_err(|e| Failure::failed(e.to_string()))
}

fn distance(view: &View, args: &Args, interfaces: &sys::Interfaces) -> Result<Plan, Failure> {
    complete(view)?;
    if args.port == 0 {
        return Err(Failure::usage("--port 0: queries need a port"));
    }
    let most = args.hot.unwrap_or_else(|| HOT_VECTORS.min(hot::most_vectors(view.dimension())));
    if most == 0 {
        return Err(Failure::usage("--hot 0: at least one vector has to answer"));
    }
    let choice = hot_set(view, most).map_err(|e| match e {
        HotError::Empty => Failure::failed("the store holds no vectors to answer from"),
        e => Failure::failed(e.to_string()),
    })?;
    view.check_intact().map_err(|e| Failure::failed(e.to_string()))?;
    let mac = interfaces.mac(&args.iface);
    let config = maps::distance_config(&choice.set, view.epoch(), args.port, view.file_id(), mac).to_vec();
    Ok(Plan::Distance { choice, live: view.resolved().len(), config, port: args.port })
}

fn filter(view: &View, args: &Args, interfaces: &sys::Interfaces) -> Result<Plan, Failure> {
    let index = |name: &str| {
        interfaces
            .number(name)
            .ok_or_else(|| Failure::failed(format!("there is no network interface '{name}'")))
    };
    let mut rules = Vec::new();
    for rule in &args.rule {
        let wrong = || Failure::usage(format!("--rule {rule}: use PORT=drop, PORT=pass or PORT=INTERFACE"));
        let (port, action) = rule.split_once('=').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let action = match action {
            "" => return Err(wrong()),
            "drop" => maps::Action::Drop,
            "pass" => maps::Action::Pass,
            name => maps::Action::Redirect(index(name)?),
        };
        rules.push((port, action.map_value()));
    }
    let elsewhere = args.elsewhere.as_deref().map(index).transpose()?.unwrap_or(0);
    let words = if args.port == 0 {
        Vec::new()
    } else {
        complete(view)?;
        let shown = view.resolved();
        let ids = (0..shown.count()).filter_map(|at| shown.at(at)).map(|place| shown.id(place));
        maps::member_words(ids).ok_or_else(|| {
            let most = u64::from(maps::MAX_MEMBER_WORDS) * 64;
            Failure::failed(format!(
                "the store has ids of {most} and more, for which there is no room; --port 0 filters by ports alone"
            ))
        })?
    };
    let config = maps::filter_config(words.len() as u64 * 64, elsewhere, args.port).to_vec();
    Ok(Plan::Filter { words, rules, config })
}

impl Plan {
    pub(super) fn none() -> Self {
        Self::None
    }

    /// Loads the program and fills its maps.
    pub(super) fn load(
        &self,
        object: &[u8],
        name: Option<&str>,
        kind: ProgramType,
    ) -> Result<Loaded, Failure> {
        let mut settings = Settings::default();
        match self {
            Self::None => return Loaded::new(object, name, kind, &settings),
            Self::Distance { choice, config, .. } => {
                return Loaded::distance(object, &choice.set, config);
            }
            Self::Filter { words, config, .. } => {
                settings.config = Some(config.clone());
                settings.entries = vec![("members", words.len().max(1) as u32)];
            }
            Self::Ports { .. } => {}
        }
        let mut loaded = Loaded::new(object, name, kind, &settings)?;
        match self {
            Self::Filter { words, rules, .. } => {
                loaded.fill("members", maps::filled(words))?;
                loaded.insert("rules", rules.iter().copied())?;
            }
            Self::Ports { words, .. } => loaded.fill("allowed", maps::filled(&words[..]))?,
            Self::None | Self::Distance { .. } => {}
        }
        Ok(loaded)
    }

    /// What it has to do with the store, for whoever started it.
    pub(super) fn note(&self) -> String {
        match self {
            Self::None => String::new(),
            Self::Distance { choice, live, port, .. } => format!(
                ", answering on UDP port {port} from {} of {live} vectors, {} of them chosen by access counts",
                choice.set.vectors.len(),
                choice.counted
            ),
            Self::Filter { words, rules, .. } => {
                let members: u32 = words.iter().map(|word| word.count_ones()).sum();
                format!(", {} rules, {members} members", rules.len())
            }
            Self::Ports { ports, .. } => format!(", letting {ports} ports through"),
        }
    }

    /// What the program counted; `None` when it is not ours.
    pub(super) fn counters(&self, loaded: &Loaded) -> Option<Result<Counters, Failure>> {
        let names: &[&'static str] = match self {
            Self::None => return None,
            Self::Distance { .. } => &maps::DISTANCE_COUNTERS,
            Self::Filter { .. } => &maps::FILTER_COUNTERS,
            Self::Ports { .. } => &maps::PORTS_COUNTERS,
        };
        Some(loaded.counters(names))
    }
}

impl Loaded {
    /// The XDP program with a hot set in its maps. `config` is [`maps::distance_config`].
    ///
    /// # Errors
    /// As [`Loaded::new`].
    pub fn distance(object: &[u8], set: &HotSet, config: &[u8]) -> Result<Self, Failure> {
        let settings =
            Settings { config: Some(config.to_vec()), entries: vec![("hot", set.vectors.len() as u32)] };
        let mut loaded = Self::new(object, None, ProgramType::Xdp, &settings)?;
        loaded.fill("hot", (0..).zip(set.vectors.iter().map(hot::HotVector::map_value)))?;
        Ok(loaded)
    }
}
