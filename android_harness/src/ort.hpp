// ONNX Runtime's C API, opened with dlopen: the program is linked to no version of it.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include <onnxruntime_c_api.h>

#include "plan.hpp"
#include "plugin_api.hpp"
#include "runtime.hpp"

namespace quadbench {

// A runtime object that is released when it goes out of scope.
template <class T>
struct Release {
  void (*release)(T*) = nullptr;
  void operator()(T* object) const { release(object); }
};
template <class T>
using Handle = std::unique_ptr<T, Release<T>>;

// The process's tensor memory as ONNX Runtime's C API takes it.
struct TensorAllocator : OrtAllocator {
  explicit TensorAllocator(Handle<OrtMemoryInfo> memory_info);
  Handle<OrtMemoryInfo> info;
};

class OrtRuntime final : public Runtime {
 public:
  // Opens the library; what graphs share, threads and arena, exists from then on. Throws InputError.
  explicit OrtRuntime(const RuntimePlan& plan);

  // Makes a plugin library's execution provider known under its name. Throws InputError, also for a runtime too old for plugins.
  void load_plugin(const std::string& provider, const std::filesystem::path& library);

  // The first device of a plugin's provider. Throws InputError where it has none.
  const OrtEpDevice* device_of(const std::string& provider) const;

  const OrtApi& api() const { return *api_; }
  const PluginApi& plugin_api() const { return plugin_api_.value(); }  // after load_plugin
  OrtEnv* environment() const { return environment_.get(); }
  const OrtMemoryInfo* cpu_memory() const { return cpu_memory_.get(); }
  const std::string& version() const override { return version_; }
  Session load(const std::filesystem::path& graph, const SessionSettings& settings, const std::string& name) const override;

  ThreadPool thread_pool() const { return thread_pool_; }
  Arena arena() const { return arena_; }

  // Throws InputError where the model is at fault, RunError otherwise. Releases the status.
  void check(OrtStatus* status, const char* where) const;

 private:
  void share_tensor_memory();
  Handle<OrtEnv> environment_with(const RuntimePlan& plan) const;

  struct Close {
    void operator()(void* library) const;
  };
  std::unique_ptr<void, Close> library_;  // first, so that it is closed last
  std::filesystem::path path_;
  const OrtApiBase* base_ = nullptr;
  const OrtApi* api_ = nullptr;
  std::optional<PluginApi> plugin_api_;
  std::string version_;
  ThreadPool thread_pool_;
  Arena arena_;
  std::unique_ptr<TensorAllocator> allocator_;  // before the environment, which uses it
  Handle<OrtEnv> environment_;
  Handle<OrtMemoryInfo> cpu_memory_;
};

}  // namespace quadbench
