// Modules and libraries between module.cc, library.cc and launch.cc.
#pragma once

#include "src/sim/client/address_map.h"
#include "src/sim/client/module.h"
#include "src/sim/client/stream.h"

namespace divvy::sim {

struct Module {
  std::shared_ptr<Image> image;
  Context* context = nullptr;
  bool of_library = false;
  Range code;
  std::mutex mu;  // guards what follows
  std::map<std::string, Function*> functions;
  std::map<std::string, Range> globals;
};

// Code that belongs to no context; it is loaded into each one that uses it, when it does.
struct Library {
  std::shared_ptr<Image> image;
  std::mutex mu;  // guards what follows
  std::map<std::string, Function*> kernels;
  std::map<Context*, Module*> loaded;
};

Function* NewFunction(std::shared_ptr<KernelInfo> info, Module* module, Library* library);
CUresult LoadModule(Context* c, std::shared_ptr<Image> image, Module** out);
void UnloadModule(Module* m);
Function* FunctionIn(Module* m, const std::string& name);  // null: no such kernel
CUresult GlobalIn(Module* m, const std::string& name, CUdeviceptr* ptr, size_t* bytes);
CUresult ModuleIn(Library* l, Context* c, Module** out);
CUresult ReadFile(const char* path, std::string* out);

}  // namespace divvy::sim
