#include "ort.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <utility>

#include "errors.hpp"
#include "tensor_memory.hpp"

namespace quadbench {
namespace {

constexpr std::uint32_t kApiVersion = 21;  // what is called is older; the header and the library may be newer
constexpr std::uint32_t kAllocatorVersion = 17;  // with Alloc, Free and Info alone

bool is_fault_of_model(OrtErrorCode code) {
  switch (code) {
    case ORT_NO_SUCHFILE:
    case ORT_NO_MODEL:
    case ORT_INVALID_PROTOBUF:
    case ORT_INVALID_GRAPH:
    case ORT_NOT_IMPLEMENTED: return true;
    default: return false;
  }
}

std::string too_old(const std::filesystem::path& library, const std::string& version, std::uint32_t api,
                    const std::string& user) {
  const std::string number = std::to_string(api);
  return "'" + library.string() + "' is ONNX Runtime " + version + ", which is older than the API " + number + " that " + user +
         " uses; use 1." + number + " or newer";
}

// A measurement sends nothing anywhere. Some versions read this variable as soon as they are loaded, and their telemetry starts
// with the environment, before DisableTelemetryEvents can be called.
void* open_without_telemetry(const std::filesystem::path& library) {
  ::setenv("ORT_DISABLE_TELEMETRY", "1", 1);
  // NODELETE, as Debian's 1.21 crashes at the end of the program where it was unmapped before.
  return open_library(library, RTLD_NODELETE);
}

}  // namespace

OrtRuntime::OrtRuntime(const RuntimePlan& plan)
    : library_(open_without_telemetry(plan.library)), path_(plan.library), thread_pool_(plan.thread_pool), arena_(plan.arena) {
  const std::filesystem::path& library = path_;
  const auto get_base = reinterpret_cast<const OrtApiBase* (*)()>(::dlsym(library_.get(), "OrtGetApiBase"));
  if (get_base == nullptr) {
    throw InputError(kLibraryKey, "'" + library.string() + "' is not ONNX Runtime: it has no OrtGetApiBase");
  }
  base_ = get_base();
  version_ = base_->GetVersionString();
  api_ = base_->GetApi(kApiVersion);
  if (api_ == nullptr) throw InputError(kLibraryKey, too_old(library, version_, kApiVersion, "this program"));
  environment_ = environment_with(plan);
  check(api_->DisableTelemetryEvents(environment()), "runtime");
  OrtMemoryInfo* memory = nullptr;
  check(api_->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), "runtime");
  cpu_memory_ = {memory, {api_->ReleaseMemoryInfo}};
  if (arena_ == Arena::kNone) share_tensor_memory();
  if (arena_ == Arena::kShared) check(api_->CreateAndRegisterAllocator(environment(), memory, nullptr), "runtime.arena");
}

TensorAllocator::TensorAllocator(Handle<OrtMemoryInfo> memory_info) : OrtAllocator{}, info(std::move(memory_info)) {
  version = kAllocatorVersion;
  Alloc = [](OrtAllocator*, std::size_t bytes) { return tensor_memory().allocate(bytes); };
  Free = [](OrtAllocator*, void* block) { tensor_memory().free(block); };
  Info = [](const OrtAllocator* self) -> const OrtMemoryInfo* { return static_cast<const TensorAllocator*>(self)->info.get(); };
}

void OrtRuntime::share_tensor_memory() {
  OrtMemoryInfo* created = nullptr;
  check(api_->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &created), "runtime");
  allocator_ = std::make_unique<TensorAllocator>(Handle<OrtMemoryInfo>(created, {api_->ReleaseMemoryInfo}));
  check(api_->RegisterAllocator(environment(), allocator_.get()), "runtime");
}

Handle<OrtEnv> OrtRuntime::environment_with(const RuntimePlan& plan) const {
  constexpr const char* kName = "quadbench";
  OrtEnv* environment = nullptr;
  if (thread_pool_ == ThreadPool::kSession) {
    check(api_->CreateEnv(ORT_LOGGING_LEVEL_WARNING, kName, &environment), "runtime");
    return {environment, {api_->ReleaseEnv}};
  }
  OrtThreadingOptions* created = nullptr;
  check(api_->CreateThreadingOptions(&created), "runtime.thread_pool");
  const Handle<OrtThreadingOptions> options(created, {api_->ReleaseThreadingOptions});
  check(api_->SetGlobalIntraOpNumThreads(created, plan.intra_op_threads), "runtime.intra_op_threads");
  check(api_->SetGlobalInterOpNumThreads(created, 1), "runtime.thread_pool");
  // A provider has threads of its own, and those of ONNX Runtime would be in their way if they waited by spinning.
  check(api_->SetGlobalSpinControl(created, plan.execution_provider ? 0 : 1), "runtime.thread_pool");
  check(api_->CreateEnvWithGlobalThreadPools(ORT_LOGGING_LEVEL_WARNING, kName, created, &environment), "runtime.thread_pool");
  return {environment, {api_->ReleaseEnv}};
}

void OrtRuntime::load_plugin(const std::string& provider, const std::filesystem::path& library) {
  const char* where = "runtime.execution_provider.library";
  const OrtApi* table = base_->GetApi(kPluginApiVersion);
  if (table == nullptr) {
    throw InputError(kLibraryKey, too_old(path_, version_, kPluginApiVersion, "the plugin library of '" + provider + "'"));
  }
  plugin_api_ = PluginApi::of(*table);
  try {
    check(plugin_api_->RegisterExecutionProviderLibrary(environment_.get(), provider.c_str(), library.c_str()), where);
  } catch (const RunError& error) {
    throw InputError(error.where(), error.what());
  }
}

const OrtEpDevice* OrtRuntime::device_of(const std::string& provider) const {
  const char* where = "runtime.execution_provider";
  const OrtEpDevice* const* devices = nullptr;
  std::size_t count = 0;
  check(plugin_api().GetEpDevices(environment_.get(), &devices, &count), where);
  for (std::size_t i = 0; i < count; ++i) {
    if (plugin_api().EpDevice_EpName(devices[i]) == provider) return devices[i];
  }
  throw InputError(where, "the plugin library has no device for '" + provider + "'");
}

void OrtRuntime::check(OrtStatus* status, const char* where) const {
  if (status == nullptr) return;
  const Handle<OrtStatus> owner(status, {api_->ReleaseStatus});
  const std::string message = std::string("ONNX Runtime: ") + api_->GetErrorMessage(status);
  if (is_fault_of_model(api_->GetErrorCode(status))) throw InputError(where, message);
  throw RunError(where, message);
}

void OrtRuntime::Close::operator()(void* library) const { ::dlclose(library); }

}  // namespace quadbench
