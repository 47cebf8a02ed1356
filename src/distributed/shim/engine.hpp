// A group of ranks as the shim's files share it.
#pragma once

#include "shim.h"

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

struct flatnce_store {
  c10::intrusive_ptr<c10d::Store> store;
};

namespace flatnce {

inline char* copied(const std::string& text) {
  char* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (copy == nullptr) {
    std::abort();
  }
  std::memcpy(copy, text.c_str(), text.size() + 1);
  return copy;
}

// The first line of what an exception says: the rest is a trace of C++ frames.
std::string said(const std::exception& error);

// Runs `body`; an exception becomes the returned text.
template <typename Body>
char* guarded(Body&& body) {
  try {
    body();
    return nullptr;
  } catch (const std::exception& error) {
    return copied(said(error));
  } catch (...) {
    return copied("an unknown C++ exception");
  }
}

// The collectives of one group. Counted by reference, because autograd's graph holds it too.
struct Engine : torch::CustomClassHolder {
  c10::intrusive_ptr<c10d::Backend> cpu;
  // For CUDA tensors; null in a group that has none.
  c10::intrusive_ptr<c10d::Backend> cuda;
  int size = 1;

  void all_reduce(std::vector<at::Tensor> tensors, c10d::ReduceOp operation);
  void all_gather(at::Tensor gathered, at::Tensor part);
  void broadcast(at::Tensor tensor, int root);
  void barrier();

  void remember(const std::string& fault);
  std::string fault();

  std::atomic<uint64_t> calls{0};
  std::atomic<uint64_t> bytes{0};
  std::atomic<uint64_t> nanoseconds{0};

 private:
  c10d::Backend& of(const at::Tensor& tensor);
  struct Timed;
  std::mutex mutex_;
  std::string fault_;
};

} // namespace flatnce

struct flatnce_group {
  c10::intrusive_ptr<flatnce::Engine> engine;
};
