// The store and the collectives: c10d's TCPStore and ProcessGroupGloo behind C.

#define USE_C10D_GLOO
#include "engine.hpp"

#include <memory>

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

namespace flatnce {

std::string said(const std::exception& error) {
  const auto* ours = dynamic_cast<const c10::Error*>(&error);
  std::string text = ours != nullptr ? ours->what_without_backtrace() : error.what();
  const auto end = text.find('\n');
  return end == std::string::npos ? text : text.substr(0, end);
}

// Counts a collective and the time that its caller waits for it.
struct Engine::Timed {
  Engine& engine;
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();

  Timed(Engine& engine, uint64_t bytes) : engine(engine) {
    engine.calls += 1;
    engine.bytes += bytes;
  }
  ~Timed() {
    const auto took = std::chrono::steady_clock::now() - start;
    engine.nanoseconds += std::chrono::duration_cast<std::chrono::nanoseconds>(took).count();
  }
};

c10d::Backend& Engine::of(const at::Tensor& tensor) {
  if (tensor.is_cpu()) {
    return *cpu;
  }
  TORCH_CHECK(cuda, "the group was opened for tensors on the CPU, and one is on ", tensor.device());
  return *cuda;
}

void Engine::all_reduce(std::vector<at::Tensor> tensors, c10d::ReduceOp operation) {
  uint64_t bytes = 0;
  for (const auto& tensor : tensors) {
    bytes += tensor.nbytes();
  }
  Timed timed(*this, bytes);
  c10d::AllreduceOptions options;
  options.reduceOp = operation;
  std::vector<c10::intrusive_ptr<c10d::Work>> under_way;
  for (auto& tensor : tensors) {
    std::vector<at::Tensor> one{tensor};
    under_way.push_back(of(tensor).allreduce(one, options));
  }
  for (auto& work : under_way) {
    work->wait();
  }
}

void Engine::all_gather(at::Tensor gathered, at::Tensor part) {
  Timed timed(*this, part.nbytes());
  of(part)._allgather_base(gathered, part)->wait();
}

void Engine::broadcast(at::Tensor tensor, int root) {
  Timed timed(*this, tensor.nbytes());
  c10d::BroadcastOptions options;
  options.rootRank = root;
  std::vector<at::Tensor> one{tensor};
  of(tensor).broadcast(one, options)->wait();
}

void Engine::barrier() {
  Timed timed(*this, 0);
  cpu->barrier()->wait();
}

void Engine::remember(const std::string& fault) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (fault_.empty()) {
    fault_ = fault;
  }
}

std::string Engine::fault() {
  std::lock_guard<std::mutex> lock(mutex_);
  return fault_;
}

namespace {

at::Tensor& tensor(flatnce_tensor pointer) {
  return *static_cast<at::Tensor*>(pointer);
}

} // namespace
} // namespace flatnce

using flatnce::guarded;
using flatnce::tensor;
using std::chrono::milliseconds;

void flatnce_release(void* text_or_bytes) {
  std::free(text_or_bytes);
}

char* flatnce_store_open(
    const char* host, uint16_t port, int listening, const char* prefix, int64_t timeout_ms, flatnce_store** opened) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = listening >= 0;
    // Whoever comes late waits for the keys it needs, not for a count of clients.
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout_ms);
    if (listening >= 0) {
      options.masterListenFd = listening;
    }
    c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::TCPStore>(host, options);
    *opened = new flatnce_store{c10::make_intrusive<c10d::PrefixStore>(prefix, store)};
  });
}

void flatnce_store_close(flatnce_store* store) {
  delete store;
}

char* flatnce_store_set(flatnce_store* store, const char* key, const uint8_t* value, size_t length) {
  return guarded([&] { store->store->set(key, std::vector<uint8_t>(value, value + length)); });
}

char* flatnce_store_get(flatnce_store* store, const char* key, int64_t timeout_ms, uint8_t** value, size_t* length) {
  return guarded([&] {
    store->store->wait({key}, milliseconds(timeout_ms));
    const auto found = store->store->get(key);
    auto* copy = static_cast<uint8_t*>(std::malloc(found.size() + 1));
    TORCH_CHECK(copy != nullptr, "no memory");
    std::memcpy(copy, found.data(), found.size());
    *value = copy;
    *length = found.size();
  });
}

char* flatnce_store_add(flatnce_store* store, const char* key, int64_t amount, int64_t* value) {
  return guarded([&] { *value = store->store->add(key, amount); });
}

char* flatnce_store_has(flatnce_store* store, const char* key, int* has) {
  return guarded([&] { *has = store->store->check({key}) ? 1 : 0; });
}

char* flatnce_group_open(
    flatnce_store* store, const char* prefix, int rank, int size, const char* address, const char* interface,
    flatnce_nccl open_nccl, int64_t timeout_ms, flatnce_group** opened) {
  return guarded([&] {
    using c10d::ProcessGroupGloo;
    auto options = ProcessGroupGloo::Options::create(milliseconds(timeout_ms));
    options->devices.push_back(
        address != nullptr ? ProcessGroupGloo::createDeviceForHostname(address)
                           : ProcessGroupGloo::createDeviceForInterface(interface));
    auto engine = c10::make_intrusive<flatnce::Engine>();
    engine->size = size;
    const auto keys = [&](const char* name) {
      return c10::make_intrusive<c10d::PrefixStore>(std::string(prefix) + name, store->store);
    };
    engine->cpu = c10::make_intrusive<ProcessGroupGloo>(keys("/gloo"), rank, size, options);
    if (open_nccl != nullptr) {
      const c10::intrusive_ptr<c10d::Store> store = keys("/nccl");
      std::unique_ptr<char, decltype(&std::free)> error(
          open_nccl(&store, rank, size, timeout_ms, &engine->cuda), &std::free);
      TORCH_CHECK(!error, error.get());
    }
    *opened = new flatnce_group{std::move(engine)};
  });
}

void flatnce_group_close(flatnce_group* group, int abandon) {
  if (abandon == 0) {
    // All have left: NCCL's group ends its communicators here, or warns when it goes.
    const auto& cuda = group->engine->cuda;
    std::free(guarded([&] { if (cuda) cuda->shutdown(); }));
    delete group;
  }
}

char* flatnce_all_reduce(flatnce_group* group, flatnce_tensor* tensors, size_t count, int operation) {
  return guarded([&] {
    std::vector<at::Tensor> list;
    for (size_t i = 0; i < count; ++i) {
      list.push_back(tensor(tensors[i]));
    }
    using c10d::ReduceOp;
    group->engine->all_reduce(std::move(list), operation == FLATNCE_MAX ? ReduceOp::MAX : ReduceOp::SUM);
  });
}

char* flatnce_all_gather(flatnce_group* group, flatnce_tensor gathered, flatnce_tensor part) {
  return guarded([&] { group->engine->all_gather(tensor(gathered), tensor(part)); });
}

char* flatnce_broadcast(flatnce_group* group, flatnce_tensor which, int root) {
  return guarded([&] { group->engine->broadcast(tensor(which), root); });
}

char* flatnce_barrier(flatnce_group* group) {
  return guarded([&] { group->engine->barrier(); });
}

char* flatnce_group_fault(flatnce_group* group) {
  const auto fault = group->engine->fault();
  return fault.empty() ? nullptr : flatnce::copied(fault);
}

void flatnce_group_traffic(flatnce_group* group, uint64_t* calls, uint64_t* bytes, double* seconds) {
  *calls = group->engine->calls;
  *bytes = group->engine->bytes;
  *seconds = static_cast<double>(group->engine->nanoseconds) * 1e-9;
}
