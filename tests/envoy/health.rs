//! Health checks and the start of the filter. One thread does both, and on a busy machine the start takes longer than a check may.

use std::fs;
use std::sync::{Arc, OnceLock};

use envoy_signalr::settings::OWN_SECRET_WARNING;
use testbed::envoy::{Envoy, EnvoyOptions, Hosts};
use testbed::process::run_dir;
use testbed::raw::Wire;
use testbed::stand_in;
use testbed::tools::EnvoyVersion;

use crate::upstream::respond;

#[test]
fn the_first_check_comes_when_the_filter_runs() {
    for version in EnvoyVersion::ALL {
        let log = run_dir().unwrap().join(format!("health-{}.log", version.number()));
        let runs = Arc::<OnceLock<bool>>::default();
        let (file, first) = (log.clone(), runs.clone());
        let pod = stand_in::listen(move |stream| {
            first.get_or_init(|| fs::read_to_string(&file).unwrap_or_default().contains(OWN_SECRET_WARNING));
            let mut wire = Wire::new(stream)?;
            while wire.read_head()?.is_some() {
                respond(&mut wire, "200 OK", &[], b"")?;
            }
            std::io::Result::Ok(())
        });
        let options = EnvoyOptions {
            version,
            hosts: Hosts::Fixed(vec![pod.unwrap().to_string()]),
            arguments: vec!["--log-path".into(), log.to_str().unwrap().into()],
            ..EnvoyOptions::default()
        };
        Envoy::start(&options).unwrap();
        assert_eq!(runs.get(), Some(&true), "{version:?}");
    }
}
