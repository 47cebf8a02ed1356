// What Rust sees of c10d, libtorch's engine for several processes. Plain C.
//
// A function that can fail returns null for success, else its error as a string
// to be released with flatnce_release. No C++ exception leaves it.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// at::Tensor*, what torch-sys calls `tensor`.
typedef void* flatnce_tensor;
typedef struct flatnce_store flatnce_store;
typedef struct flatnce_group flatnce_group;

// flatnce_open_nccl of the CUDA part (native/cuda/nccl.cpp): from a c10::intrusive_ptr<c10d::Store>* it makes what goes
// into a c10::intrusive_ptr<c10d::Backend>*. Without CUDA's headers here, so that one program serves every machine.
typedef char* (*flatnce_nccl)(const void* store, int rank, int size, int64_t timeout_ms, void* opened);

void flatnce_release(void* text_or_bytes);

// Connects to the key-value store at host:port; `listening` >= 0 is a bound socket on which this process serves it
// (it is owned by the store from then on). Every key gets `prefix` in front.
char* flatnce_store_open(
    const char* host, uint16_t port, int listening, const char* prefix, int64_t timeout_ms, flatnce_store** opened);
void flatnce_store_close(flatnce_store* store);
char* flatnce_store_set(flatnce_store* store, const char* key, const uint8_t* value, size_t length);
// Waits until the key is there.
char* flatnce_store_get(flatnce_store* store, const char* key, int64_t timeout_ms, uint8_t** value, size_t* length);
// Adds to a counter, 0 where there is none yet, and answers with its value.
char* flatnce_store_add(flatnce_store* store, const char* key, int64_t amount, int64_t* value);
char* flatnce_store_has(flatnce_store* store, const char* key, int* has);

// Joins the group that meets under `prefix`; returns when all ranks have. `address` is this machine's, on which the
// others reach it, or null for that of the network card `interface`. `open_nccl` adds NCCL for CUDA tensors; null where
// there are none.
char* flatnce_group_open(
    flatnce_store* store, const char* prefix, int rank, int size, const char* address, const char* interface,
    flatnce_nccl open_nccl, int64_t timeout_ms, flatnce_group** opened);
// `abandon` != 0 leaves connections and threads to the end of the process: after a fault, closing them may wait.
void flatnce_group_close(flatnce_group* group, int abandon);

enum { FLATNCE_SUM = 0, FLATNCE_MAX = 1 };

// In place, on every tensor of the list: all are under way at once.
char* flatnce_all_reduce(flatnce_group* group, flatnce_tensor* tensors, size_t count, int operation);
// `gathered` [W * n, ...] from every rank's `part` [n, ...].
char* flatnce_all_gather(flatnce_group* group, flatnce_tensor gathered, flatnce_tensor part);
char* flatnce_broadcast(flatnce_group* group, flatnce_tensor tensor, int root);
char* flatnce_barrier(flatnce_group* group);

// BatchNorm in training mode with the statistics of all ranks' x, [M, C, ...]; recorded for autograd. The running
// statistics are updated. A fault is remembered (flatnce_group_fault) instead of returned, because the backward pass
// has nobody to return it to: the result is then that of this rank alone, not to be used.
char* flatnce_batch_norm(
    flatnce_group* group, flatnce_tensor x, flatnce_tensor weight, flatnce_tensor bias, flatnce_tensor running_mean,
    flatnce_tensor running_var, double momentum, double epsilon, flatnce_tensor* out);

// The first fault of a collective inside a forward or backward pass; null when there was none.
char* flatnce_group_fault(flatnce_group* group);
// Calls of collectives so far, and bytes of the tensors that this rank gave to them.
void flatnce_group_traffic(flatnce_group* group, uint64_t* calls, uint64_t* bytes, double* seconds);

#ifdef __cplusplus
}
#endif
