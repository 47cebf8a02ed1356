//! The engine's place in a build without the feature `distributed`: nothing of it can be made, so nothing of it is
//! ever called.

use super::{Reduction, Traffic};
use anyhow::{Result, bail};
use std::os::fd::OwnedFd;
use std::time::Duration;
use tch::Tensor;

#[derive(Debug)]
pub enum Store {}

impl Store {
    pub fn open(_: &str, _: u16, _: Option<OwnedFd>, _: &str, _: Duration) -> Result<Store> {
        bail!("{}", super::NOT_BUILT)
    }

    pub fn set(&self, _: &str, _: &[u8]) -> Result<()> {
        match *self {}
    }

    pub fn get(&self, _: &str, _: Duration) -> Result<Vec<u8>> {
        match *self {}
    }

    pub fn add(&self, _: &str, _: i64) -> Result<i64> {
        match *self {}
    }

    pub fn has(&self, _: &str) -> Result<bool> {
        match *self {}
    }
}

/// Where this machine is reached by the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    Address(String),
    Card(String),
}

#[derive(Debug)]
pub enum Nccl {}

impl Nccl {
    pub fn find() -> Result<Nccl> {
        bail!("{}", super::NOT_BUILT)
    }
}

#[derive(Debug)]
pub enum Engine {}

impl Engine {
    pub fn open(
        store: &Store,
        _: &str,
        _: (usize, usize),
        _: &Reached,
        _: Option<Nccl>,
        _: Duration,
    ) -> Result<Engine> {
        match *store {}
    }

    pub fn abandon(&self) {
        match *self {}
    }

    pub fn all_reduce(&self, _: &[&Tensor], _: Reduction) -> Result<()> {
        match *self {}
    }

    pub fn all_gather(&self, _: &Tensor) -> Result<Tensor> {
        match *self {}
    }

    pub fn broadcast(&self, _: &Tensor, _: usize) -> Result<()> {
        match *self {}
    }

    pub fn barrier(&self) -> Result<()> {
        match *self {}
    }

    pub fn batch_norm(&self, _: &Tensor, _: [&Tensor; 4], _: f64, _: f64) -> Result<Tensor> {
        match *self {}
    }

    pub fn fault(&self) -> Option<String> {
        match *self {}
    }

    pub fn traffic(&self) -> Traffic {
        match *self {}
    }
}
