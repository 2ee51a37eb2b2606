// NVML as a verb asks it by itself: the library of this process, so inside of a share what the shim
// makes of it. Unlike device::Source, which the daemon keeps open, this only looks.
#pragma once

#include <dlfcn.h>

#include <string>

#include "src/abi/nvml.h"

namespace divvy::cli {

class NvmlLibrary {
 public:
  explicit NvmlLibrary(const std::string& path) : handle_(::dlopen(path.c_str(), RTLD_NOW)) {
    if (handle_ == nullptr) why_ = ::dlerror();
  }
  ~NvmlLibrary() {
    if (handle_ != nullptr) ::dlclose(handle_);
  }
  NvmlLibrary(const NvmlLibrary&) = delete;
  NvmlLibrary& operator=(const NvmlLibrary&) = delete;
  explicit operator bool() const { return handle_ != nullptr; }
  const std::string& why() const { return why_; }  // it could not be loaded

  // The function's answer; NVML_ERROR_FUNCTION_NOT_FOUND where the driver has none of that name.
  template <typename... A>
  nvmlReturn_t Call(const char* name, A... arguments) const {
    auto* fn = reinterpret_cast<nvmlReturn_t (*)(A...)>(::dlsym(handle_, name));
    return fn == nullptr ? NVML_ERROR_FUNCTION_NOT_FOUND : fn(arguments...);
  }
  std::string TextOf(nvmlReturn_t code) const {
    auto* fn = reinterpret_cast<const char* (*)(nvmlReturn_t)>(::dlsym(handle_, "nvmlErrorString"));
    return fn == nullptr ? "error " + std::to_string(code) : fn(code);
  }
  // A text answer of at most 95 characters; "" when there is none.
  template <typename... A>
  std::string Text(const char* name, A... arguments) const {
    char text[96] = {};
    return Call(name, arguments..., &text[0], 96u) == NVML_SUCCESS ? text : "";
  }

 private:
  void* handle_;
  std::string why_;
};

}  // namespace divvy::cli
