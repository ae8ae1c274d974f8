#include "runtime.hpp"

#include <dlfcn.h>

#include "errors.hpp"
#include "litert.hpp"
#include "ort.hpp"

namespace quadbench {
namespace {

std::unique_ptr<Runtime> open_onnx_runtime(const RuntimePlan& plan) {
  auto runtime = std::make_unique<OrtRuntime>(plan);
  if (const auto& provider = plan.execution_provider; provider && provider->library) {
    runtime->load_plugin(provider->name, *provider->library);
  }
  return runtime;
}

}  // namespace

void* open_library(const std::filesystem::path& library, int flags) {
  if (void* opened = ::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL | flags)) return opened;
  const char* reason = ::dlerror();
  throw InputError(kLibraryKey, "cannot open '" + library.string() + "': " + (reason != nullptr ? reason : "unknown reason"));
}

std::unique_ptr<Runtime> open_runtime(const RuntimePlan& plan) {
  switch (plan.engine) {
    case Engine::kOnnxRuntime: return open_onnx_runtime(plan);
    case Engine::kLiteRt: return std::make_unique<LiteRtRuntime>(plan);
  }
  return nullptr;
}

}  // namespace quadbench
