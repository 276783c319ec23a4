//! `envoy/docker-compose.yaml` and the images that it builds: read by Compose, and run by a real engine.
mod engine;
mod files;
