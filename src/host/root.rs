//! The root context: one per worker thread and configuration. Reads the configuration, makes the exchanges.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use log::{error, warn};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use super::exchange::HttpExchange;
use super::meters::Meters;
use super::{random, store};
use crate::settings::{OWN_SECRET_WARNING, Settings, SettingsError, Surroundings};
use crate::store::{self, HubNames, Secret};
use crate::stream::Stream;

#[derive(Default)]
pub(super) struct Root {
    settings: Option<Rc<Settings>>,
    hubs: Rc<RefCell<HubNames>>,
    meters: Rc<RefCell<Meters>>,
}

impl Context for Root {}

impl RootContext for Root {
    /// Runs in a trial VM, on the main thread and in each worker thread, so it counts nothing and speaks once.
    fn on_configure(&mut self, _: usize) -> bool {
        let json = self.get_plugin_configuration().unwrap_or_default();
        let Some(candidate) = random() else {
            error!("envoy gives no randomness, so nothing can be sealed");
            return false;
        };
        match configure(&json, candidate) {
            Ok(settings) => {
                self.settings = Some(Rc::new(settings));
                true
            }
            Err(refusal) => {
                error!("configuration refused: {refusal}");
                false
            }
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        let settings = self.settings.clone()?;
        let stream = Stream::new(settings.clone(), self.hubs.clone());
        Some(Box::new(HttpExchange::new(stream, settings, self.meters.clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

fn configure(json: &[u8], candidate: Secret) -> Result<Settings, SettingsError> {
    let created = Cell::new(false);
    let process_secret = || {
        let process = store::process_secret(store(), candidate);
        created.set(process.created);
        process.secret
    };
    let settings = Settings::parse(json, &Surroundings { env: &environment, process_secret: &process_secret })?;
    if created.get() {
        warn!("{OWN_SECRET_WARNING}");
    }
    Ok(settings)
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the module's environment")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
