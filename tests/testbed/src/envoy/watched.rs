//! A part of the configuration that Envoy takes from a file, and takes again when another is moved there.
//!
//! Its methods panic where the bootstrap is not as `envoy/envoy.yaml` has it: a [`super::Patch`] has no way to return an error.
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::bootstrap::{signalr_filter, signalr_filter_of_listener};
use crate::process::run_dir;

/// One resource in one file.
#[derive(Clone, Debug)]
pub struct Watched {
    file: PathBuf,
}

impl Watched {
    /// A file in a folder of its own.
    pub fn new(name: &str) -> Result<Self> {
        let folder = run_dir()?.join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Ok(Self { file: folder.join("resource.json") })
    }

    /// Takes the filter out of the bootstrap (ECDS): a change is for new requests only.
    pub fn take_filter(&self, bootstrap: &mut Value) {
        let source = self.source();
        let filter = signalr_filter(bootstrap);
        self.write(&json!({
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": "signalr",
            "typed_config": filter["typed_config"],
        }));
        let kind = filter["typed_config"]["@type"].clone();
        *filter = json!({ "name": "signalr", "config_discovery": { "config_source": source, "type_urls": [kind] } });
    }

    /// Takes the listener out of the bootstrap (LDS): a change drains the old one, with what is open on it.
    pub fn take_listener(&self, bootstrap: &mut Value) {
        let listeners = bootstrap["static_resources"]["listeners"].as_array_mut();
        let mut listener = listeners.expect("envoy.yaml has listeners").remove(0);
        listener["@type"] = "type.googleapis.com/envoy.config.listener.v3.Listener".into();
        self.write(&listener);
        bootstrap["dynamic_resources"] = json!({ "lds_config": self.source() });
    }

    /// Gives the filter other settings.
    pub fn configure(&self, settings: &Value) {
        self.change(|resource| {
            let filter =
                if resource.get("filter_chains").is_some() { signalr_filter_of_listener(resource) } else { resource };
            filter["typed_config"]["config"]["configuration"]["value"] = settings.to_string().into();
        });
    }

    /// Changes what is in the file.
    pub fn change(&self, change: impl FnOnce(&mut Value)) {
        let text = fs::read(&self.file).expect("a file that Envoy has read");
        let mut resource = serde_json::from_slice::<Value>(&text).expect("JSON of ours")["resources"][0].take();
        change(&mut resource);
        self.write(&resource);
    }

    fn write(&self, resource: &Value) {
        let fresh = self.file.with_extension("next");
        fs::write(&fresh, json!({ "resources": [resource] }).to_string()).expect("a folder of ours");
        fs::rename(fresh, &self.file).expect("a folder of ours");
    }

    fn source(&self) -> Value {
        let path = json!({ "path": self.file, "watched_directory": { "path": self.file.parent() } });
        json!({ "resource_api_version": "V3", "path_config_source": path })
    }
}
