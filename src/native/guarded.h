// No exception leaves the C++: a function returns null, or a message that the caller frees.

#pragma once

#include <c10/util/Exception.h>

#include <cstdint>
#include <cstring>
#include <exception>

template <typename Work>
char* guarded(Work&& work) noexcept {
  try {
    work();
    return nullptr;
  } catch (const c10::Error& error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("an exception of unknown type");
  }
}
