// PyTorch's wheels contain Gloo but not Gloo's headers. Its own header
// ProcessGroupGloo.hpp includes five of them and needs, of what they declare, the
// names below; it holds every Gloo object through a pointer, so that the layout of
// its classes does not depend on them. These stand-ins declare those names and no
// more: nothing here is constructed or called by our code, and all of Gloo's own
// code is that inside libtorch_cpu.so.
#pragma once

#include <chrono>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

} // namespace gloo
