//! A module in its sandbox: no imports, bounded memory, tables, fuel and stack.

use wasmtime::{
    Config, Engine, Error, Instance, Memory, Module, Store, StoreLimits, StoreLimitsBuilder, Trap, TypedFunc,
    Val, WasmParams, WasmResults,
};

/// What a module may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Steps, about one an instruction; `None` does not count them, which only a benchmark should want.
    pub fuel: Option<u64>,
    /// Bytes of memory.
    pub memory: u64,
    /// Entries of all tables together.
    pub table_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { fuel: Some(100_000_000_000), memory: 64 << 20, table_entries: 10_000 }
    }
}

/// Bytes of stack for the module's calls.
const STACK: usize = 512 << 10;

/// Why a module did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// The engine cannot be set up, which is no fault of the module.
    #[error("the engine cannot be set up: {0}")]
    Engine(String),
    /// Not valid, or with a feature that is not offered.
    #[error("the module is not accepted: {0}")]
    Module(String),
    /// It wants something from its host.
    #[error("the module imports {0}, and nothing is offered")]
    Import(String),
    /// It lacks something that it must have.
    #[error("the module has no {0}")]
    Missing(String),
    /// It asked for more than its limit, or counted more steps.
    #[error("{0}")]
    Limit(String),
    /// It trapped.
    #[error("the module failed: {0}")]
    Trap(String),
    /// It answered something that cannot be.
    #[error("the module answered what cannot be: {0}")]
    Answer(String),
}

/// An engine for these limits: code compiled for one that counts fuel is of no use to one that does not.
///
/// # Errors
/// [`GuestError::Engine`].
pub fn engine(limits: &Limits) -> Result<Engine, GuestError> {
    let mut config = Config::new();
    config
        .consume_fuel(limits.fuel.is_some())
        .max_wasm_stack(STACK)
        // Nobody looks at frames, and a copy-on-write image would need a file.
        .native_unwind_info(false)
        .generate_address_map(false)
        .memory_init_cow(false)
        // As verified by check 5; whatever else the engine could do stays off.
        .wasm_relaxed_simd(false)
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .wasm_tail_call(false);
    Engine::new(&config).map_err(|e| GuestError::Engine(e.to_string()))
}

/// Compiles a module.
///
/// # Errors
/// [`GuestError::Module`] when it is not valid, [`GuestError::Import`] when it needs anything from outside.
pub fn compile(engine: &Engine, module: &[u8]) -> Result<Module, GuestError> {
    let module = Module::new(engine, module).map_err(|e| GuestError::Module(one_line(&e)))?;
    alone(&module)?;
    Ok(module)
}

/// Refuses a module that imports.
pub(super) fn alone(module: &Module) -> Result<(), GuestError> {
    match module.imports().next() {
        Some(import) => Err(GuestError::Import(format!(
            "'{}' of '{}'",
            import.name().escape_default(),
            import.module().escape_default()
        ))),
        None => Ok(()),
    }
}

fn one_line(error: &Error) -> String {
    let text = format!("{error:#}");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An instance of a module. Dropping it frees all it had.
#[derive(Debug)]
pub struct Guest {
    store: Store<StoreLimits>,
    instance: Instance,
    fuel: Option<u64>,
}

impl Guest {
    /// Makes an instance. What the module does at its start counts as its first call.
    ///
    /// # Errors
    /// [`GuestError`].
    pub fn new(engine: &Engine, module: &Module, limits: &Limits) -> Result<Self, GuestError> {
        let memory = usize::try_from(limits.memory).unwrap_or(usize::MAX);
        let limiter = StoreLimitsBuilder::new()
            .memory_size(memory)
            .table_elements(limits.table_entries)
            .instances(1)
            .memories(1)
            .tables(4)
            .build();
        let mut store = Store::new(engine, limiter);
        store.limiter(|limits| limits);
        if let Some(fuel) = limits.fuel {
            store.set_fuel(fuel).map_err(|e| GuestError::Engine(e.to_string()))?;
        }
        let instance =
            Instance::new(&mut store, module, &[]).map_err(|e| match e.downcast_ref::<Trap>() {
                Some(_) => trapped(&e, limits.fuel),
                // What it declares is over a limit: memory and tables are made before anything runs.
                None => GuestError::Limit(format!("the module cannot start: {}", one_line(&e))),
            })?;
        Ok(Self { store, instance, fuel: limits.fuel })
    }

    /// Whether it exports a function of this name.
    pub fn exports(&mut self, name: &str) -> bool {
        self.instance.get_func(&mut self.store, name).is_some()
    }

    /// An exported function of this type.
    ///
    /// # Errors
    /// [`GuestError::Missing`].
    pub fn function<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &'static str,
    ) -> Result<TypedFunc<P, R>, GuestError> {
        let found = self.instance.get_typed_func(&mut self.store, name);
        found.map_err(|e| GuestError::Missing(format!("function '{name}' as it should be: {}", one_line(&e))))
    }

    /// Calls a function.
    ///
    /// # Errors
    /// [`GuestError::Trap`] or [`GuestError::Limit`].
    pub fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        function: &TypedFunc<P, R>,
        arguments: P,
    ) -> Result<R, GuestError> {
        function.call(&mut self.store, arguments).map_err(|e| trapped(&e, self.fuel))
    }

    /// Calls an exported function with arguments as text, and gives its results as text.
    ///
    /// # Errors
    /// [`GuestError::Missing`] when it takes other arguments; otherwise as [`Guest::call`].
    pub fn invoke(&mut self, name: &str, arguments: &[String]) -> Result<Vec<String>, GuestError> {
        let missing =
            |what: &str| GuestError::Missing(format!("function '{}' {what}", name.escape_default()));
        let function = self.instance.get_func(&mut self.store, name).ok_or_else(|| missing(""))?;
        let kind = function.ty(&self.store);
        if kind.params().len() != arguments.len() {
            return Err(missing(&format!(
                "of {} arguments; it takes {}",
                arguments.len(),
                kind.params().len()
            )));
        }
        let mut values = Vec::with_capacity(arguments.len());
        for (kind, text) in kind.params().zip(arguments) {
            let value = match kind {
                wasmtime::ValType::I32 => text.parse().map(Val::I32).ok(),
                wasmtime::ValType::I64 => text.parse().map(Val::I64).ok(),
                wasmtime::ValType::F32 => text.parse::<f32>().map(|v| Val::F32(v.to_bits())).ok(),
                wasmtime::ValType::F64 => text.parse::<f64>().map(|v| Val::F64(v.to_bits())).ok(),
                _ => None,
            };
            let wrong = || missing(&format!("that takes '{}' for {kind}", text.escape_default()));
            values.push(value.ok_or_else(wrong)?);
        }
        let mut results = vec![Val::I32(0); kind.results().len()];
        function.call(&mut self.store, &values, &mut results).map_err(|e| trapped(&e, self.fuel))?;
        Ok(results
            .iter()
            .map(|value| match value {
                Val::I32(value) => value.to_string(),
                Val::I64(value) => value.to_string(),
                Val::F32(bits) => f32::from_bits(*bits).to_string(),
                Val::F64(bits) => f64::from_bits(*bits).to_string(),
                Val::V128(bits) => format!("{:#034x}", bits.as_u128()),
                _ => "reference".to_owned(),
            })
            .collect())
    }

    /// The memory that it exports as `memory`.
    ///
    /// # Errors
    /// [`GuestError::Missing`].
    pub fn memory(&mut self) -> Result<Memory, GuestError> {
        let found = self.instance.get_memory(&mut self.store, "memory");
        found.ok_or_else(|| GuestError::Missing("memory of that name".into()))
    }

    /// Bytes of the memory as they are now, to read and to write.
    ///
    /// # Errors
    /// [`GuestError::Answer`] for a range that is not inside.
    pub fn bytes(&mut self, memory: &Memory, at: u32, len: usize) -> Result<&mut [u8], GuestError> {
        let all = memory.data_mut(&mut self.store);
        let have = all.len();
        let start = at as usize;
        let range = start.checked_add(len).and_then(|end| all.get_mut(start..end));
        range.ok_or_else(|| GuestError::Answer(format!("{len} bytes at {at} in a memory of {have} bytes")))
    }

    /// Fuel that was used; `None` when it is not counted.
    pub fn used(&self) -> Option<u64> {
        Some(self.fuel?.saturating_sub(self.store.get_fuel().ok()?))
    }
}

fn trapped(error: &Error, fuel: Option<u64>) -> GuestError {
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => {
            GuestError::Limit(format!("the module used up its fuel ({})", fuel.unwrap_or_default()))
        }
        Some(Trap::StackOverflow) => GuestError::Limit("the module used up its stack".into()),
        Some(trap) => GuestError::Trap(trap.to_string()),
        None => GuestError::Trap(one_line(error)),
    }
}
