//! c10d through the C shim, made safe: no pointer leaves this file.

use super::{Reduction, Traffic};
use crate::native::cuda;
use anyhow::{Context, Result, anyhow};
use std::ffi::{CStr, CString, c_char, c_double, c_int, c_void};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::time::Duration;
use tch::Tensor;

#[repr(C)]
struct RawStore {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawGroup {
    _opaque: [u8; 0],
}

type RawTensor = *mut c_void;

/// `flatnce_nccl` of shim.h.
type OpenNccl = unsafe extern "C" fn(*const c_void, c_int, c_int, i64, *mut c_void) -> *mut c_char;

unsafe extern "C" {
    fn flatnce_release(text_or_bytes: *mut c_void);
    fn flatnce_store_open(
        host: *const c_char,
        port: u16,
        listening: c_int,
        prefix: *const c_char,
        timeout_ms: i64,
        opened: *mut *mut RawStore,
    ) -> *mut c_char;
    fn flatnce_store_close(store: *mut RawStore);
    fn flatnce_store_set(store: *mut RawStore, key: *const c_char, value: *const u8, length: usize) -> *mut c_char;
    fn flatnce_store_get(
        store: *mut RawStore,
        key: *const c_char,
        timeout_ms: i64,
        value: *mut *mut u8,
        length: *mut usize,
    ) -> *mut c_char;
    fn flatnce_store_add(store: *mut RawStore, key: *const c_char, amount: i64, value: *mut i64) -> *mut c_char;
    fn flatnce_store_has(store: *mut RawStore, key: *const c_char, has: *mut c_int) -> *mut c_char;
    fn flatnce_group_open(
        store: *mut RawStore,
        prefix: *const c_char,
        rank: c_int,
        size: c_int,
        address: *const c_char,
        interface: *const c_char,
        open_nccl: Option<OpenNccl>,
        timeout_ms: i64,
        opened: *mut *mut RawGroup,
    ) -> *mut c_char;
    fn flatnce_group_close(group: *mut RawGroup, abandon: c_int);
    fn flatnce_all_reduce(group: *mut RawGroup, tensors: *mut RawTensor, count: usize, operation: c_int)
    -> *mut c_char;
    fn flatnce_all_gather(group: *mut RawGroup, gathered: RawTensor, part: RawTensor) -> *mut c_char;
    fn flatnce_broadcast(group: *mut RawGroup, tensor: RawTensor, root: c_int) -> *mut c_char;
    fn flatnce_barrier(group: *mut RawGroup) -> *mut c_char;
    fn flatnce_batch_norm(
        group: *mut RawGroup,
        x: RawTensor,
        weight: RawTensor,
        bias: RawTensor,
        running_mean: RawTensor,
        running_var: RawTensor,
        momentum: c_double,
        epsilon: c_double,
        out: *mut RawTensor,
    ) -> *mut c_char;
    fn flatnce_group_fault(group: *mut RawGroup) -> *mut c_char;
    fn flatnce_group_traffic(group: *mut RawGroup, calls: *mut u64, bytes: *mut u64, seconds: *mut c_double);
}

/// The text that the shim answered with, taken over; `None` for null.
fn taken(text: *mut c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: what is not null is a C string of the shim's, ours to read and to release once.
    unsafe {
        let message = CStr::from_ptr(text).to_string_lossy().into_owned();
        flatnce_release(text.cast());
        Some(message)
    }
}

fn checked(error: *mut c_char) -> Result<()> {
    taken(error).map_or(Ok(()), |message| Err(anyhow!(message)))
}

fn c_text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| anyhow!("{text:?} has a zero byte in it"))
}

/// Milliseconds as c10d takes them; at least one, because it reads 0 as "for ever".
fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX).max(1)
}

/// The `at::Tensor` behind a tensor; it is not kept beyond the call that it is given to.
fn raw(tensor: &Tensor) -> RawTensor {
    tensor.as_ptr().cast_mut().cast()
}

/// A connection to the key-value store.
#[derive(Debug)]
pub struct Store(*mut RawStore);

// SAFETY: c10d's TCPStore locks around every operation and belongs to no thread.
unsafe impl Send for Store {}

impl Store {
    /// Connects to `host:port`, or serves it on `listening`, a socket bound there. Keys get `prefix` in front.
    ///
    /// Errors: c10d's, when nobody answers in time.
    pub fn open(host: &str, port: u16, listening: Option<OwnedFd>, prefix: &str, timeout: Duration) -> Result<Store> {
        let (host, prefix) = (c_text(host)?, c_text(prefix)?);
        let listening = listening.map_or(-1, IntoRawFd::into_raw_fd);
        let mut opened = std::ptr::null_mut();
        // SAFETY: both strings outlive the call; the socket's ownership goes to the store.
        checked(unsafe {
            let timeout = milliseconds(timeout);
            flatnce_store_open(host.as_ptr(), port, listening, prefix.as_ptr(), timeout, &raw mut opened)
        })?;
        Ok(Store(opened))
    }

    /// Writes a value.
    ///
    /// Errors: the store is gone.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<()> {
        let key = c_text(key)?;
        // SAFETY: key and value outlive the call, which copies both.
        checked(unsafe { flatnce_store_set(self.0, key.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// Waits until a value is there and reads it.
    ///
    /// Errors: it did not come in time; the store is gone.
    pub fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>> {
        let key = c_text(key)?;
        let (mut value, mut length) = (std::ptr::null_mut(), 0);
        // SAFETY: on success value points to `length` bytes, ours to read and to release once.
        unsafe {
            let timeout = milliseconds(timeout);
            checked(flatnce_store_get(self.0, key.as_ptr(), timeout, &raw mut value, &raw mut length))?;
            let bytes = std::slice::from_raw_parts(value, length).to_vec();
            flatnce_release(value.cast());
            Ok(bytes)
        }
    }

    /// Adds to a counter, which begins at 0, and reads it.
    ///
    /// Errors: the store is gone.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64> {
        let key = c_text(key)?;
        let mut value = 0;
        // SAFETY: the key outlives the call.
        checked(unsafe { flatnce_store_add(self.0, key.as_ptr(), amount, &raw mut value) })?;
        Ok(value)
    }

    /// Whether a value is there.
    ///
    /// Errors: the store is gone.
    pub fn has(&self, key: &str) -> Result<bool> {
        let key = c_text(key)?;
        let mut has = 0;
        // SAFETY: the key outlives the call.
        checked(unsafe { flatnce_store_has(self.0, key.as_ptr(), &raw mut has) })?;
        Ok(has != 0)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: opened by the shim, closed here alone.
        unsafe { flatnce_store_close(self.0) }
    }
}

/// Where this machine is reached by the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    Address(String),
    /// The address of a network card.
    Card(String),
}

/// NCCL, which reduces tensors on GPUs.
#[derive(Clone, Copy, Debug)]
pub struct Nccl(OpenNccl);

impl Nccl {
    /// NCCL as the CUDA part of the program offers it; libtorch's CUDA libraries are loaded.
    ///
    /// Errors: the program has no CUDA part, or it does not load.
    pub fn find() -> Result<Nccl> {
        let needs = "several processes on GPUs need NCCL";
        let part = cuda::part()
            .map_err(|why| anyhow!("{needs}: {why}; flatnce doctor says more, and --device cpu needs no NCCL"))?;
        // SAFETY: the type is that of native/cuda/nccl.cpp.
        Ok(Nccl(unsafe { part.function(c"flatnce_open_nccl") }.context(needs)?))
    }
}

/// The collectives of one group. Every rank calls the same ones in the same order.
#[derive(Debug)]
pub struct Engine {
    raw: *mut RawGroup,
    size: usize,
    abandoned: std::cell::Cell<bool>,
}

impl Engine {
    /// Joins the group that meets in `store` under `prefix`; returns when every rank has.
    ///
    /// Errors: c10d's and NCCL's.
    pub fn open(
        store: &Store,
        prefix: &str,
        (rank, size): (usize, usize),
        reached: &Reached,
        nccl: Option<Nccl>,
        timeout: Duration,
    ) -> Result<Engine> {
        let prefix = c_text(prefix)?;
        let (address, card) = match reached {
            Reached::Address(address) => (Some(c_text(address)?), None),
            Reached::Card(card) => (None, Some(c_text(card)?)),
        };
        let pointer = |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        let (address, card) = (&address, &card);
        let mut opened = std::ptr::null_mut();
        // SAFETY: the strings outlive the call; the group keeps a reference of its own to the store.
        checked(unsafe {
            flatnce_group_open(
                store.0,
                prefix.as_ptr(),
                c_int::try_from(rank)?,
                c_int::try_from(size)?,
                pointer(address),
                pointer(card),
                nccl.map(|nccl| nccl.0),
                milliseconds(timeout),
                &raw mut opened,
            )
        })?;
        Ok(Engine { raw: opened, size, abandoned: false.into() })
    }

    /// From now on nothing waits for the others, not even closing.
    pub fn abandon(&self) {
        self.abandoned.set(true);
    }

    /// Reduces every tensor in place; all are under way at once.
    pub fn all_reduce(&self, tensors: &[&Tensor], how: Reduction) -> Result<()> {
        let mut list: Vec<RawTensor> = tensors.iter().map(|tensor| raw(tensor)).collect();
        let operation = match how {
            Reduction::Sum => 0,
            Reduction::Max => 1,
        };
        // SAFETY: the list and its tensors outlive the call, which returns when the collective is done.
        checked(unsafe { flatnce_all_reduce(self.raw, list.as_mut_ptr(), list.len(), operation) })
    }

    /// `[n, ...]` of every rank as `[W * n, ...]`, in the order of ranks.
    pub fn all_gather(&self, part: &Tensor) -> Result<Tensor> {
        let part = part.contiguous();
        let mut shape = part.size();
        shape[0] *= self.size as i64;
        let gathered = Tensor::f_empty(&shape, (part.kind(), part.device()))?;
        // SAFETY: both tensors outlive the call.
        checked(unsafe { flatnce_all_gather(self.raw, raw(&gathered), raw(&part)) })?;
        Ok(gathered)
    }

    /// Overwrites the tensor, contiguous, with that of rank `root`.
    pub fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<()> {
        // SAFETY: the tensor outlives the call.
        checked(unsafe { flatnce_broadcast(self.raw, raw(tensor), c_int::try_from(root)?) })
    }

    /// Returns when every rank has come here.
    pub fn barrier(&self) -> Result<()> {
        // SAFETY: the group is open.
        checked(unsafe { flatnce_barrier(self.raw) })
    }

    /// BatchNorm in training mode over the images of all ranks; a fault of the network is left to [`Engine::fault`].
    pub fn batch_norm(
        &self,
        x: &Tensor,
        [weight, bias, running_mean, running_var]: [&Tensor; 4],
        momentum: f64,
        epsilon: f64,
    ) -> Result<Tensor> {
        let mut out: RawTensor = std::ptr::null_mut();
        // SAFETY: the inputs outlive the call, autograd counts its own references to them and to the group; on success
        // `out` is a new at::Tensor, which the tensor made of it owns.
        unsafe {
            checked(flatnce_batch_norm(
                self.raw,
                raw(x),
                raw(weight),
                raw(bias),
                raw(running_mean),
                raw(running_var),
                momentum,
                epsilon,
                &raw mut out,
            ))?;
            Ok(Tensor::from_ptr(out.cast()))
        }
    }

    /// The first fault of a collective inside a forward or backward pass.
    pub fn fault(&self) -> Option<String> {
        // SAFETY: the group is open.
        taken(unsafe { flatnce_group_fault(self.raw) })
    }

    /// What the collectives have cost so far.
    pub fn traffic(&self) -> Traffic {
        let (mut calls, mut bytes, mut seconds) = (0, 0, 0.0);
        // SAFETY: the group is open; the three places outlive the call.
        unsafe { flatnce_group_traffic(self.raw, &raw mut calls, &raw mut bytes, &raw mut seconds) };
        Traffic { calls, bytes, seconds }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: opened by the shim, closed here alone.
        unsafe { flatnce_group_close(self.raw, c_int::from(self.abandoned.get())) }
    }
}
