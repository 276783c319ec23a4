//! `envoy/docker-compose.yaml` and the images that it builds.
mod files;
