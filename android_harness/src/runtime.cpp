#include "runtime.hpp"

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

std::unique_ptr<Runtime> open_runtime(const RuntimePlan& plan) {
  switch (plan.engine) {
    case Engine::kOnnxRuntime: return open_onnx_runtime(plan);
    case Engine::kLiteRt: return std::make_unique<LiteRtRuntime>(plan);
  }
  return nullptr;
}

}  // namespace quadbench
