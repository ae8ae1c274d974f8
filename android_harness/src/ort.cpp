#include "ort.hpp"

#include <dlfcn.h>

#include "errors.hpp"

namespace quadbench {
namespace {

constexpr int kApiVersion = 22;  // the first with plugin libraries; the header may be of a newer one

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

}  // namespace

Runtime::Runtime(const std::filesystem::path& library) : library_(::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL)) {
  const std::string name = "runtime.library";
  if (!library_) {
    const char* reason = ::dlerror();
    throw InputError(name, "cannot open '" + library.string() + "': " + (reason != nullptr ? reason : "unknown reason"));
  }
  const auto get_base = reinterpret_cast<const OrtApiBase* (*)()>(::dlsym(library_.get(), "OrtGetApiBase"));
  if (get_base == nullptr) throw InputError(name, "'" + library.string() + "' is not ONNX Runtime: it has no OrtGetApiBase");
  version_ = get_base()->GetVersionString();
  api_ = get_base()->GetApi(kApiVersion);
  if (api_ == nullptr) {
    throw InputError(name, "'" + library.string() + "' is ONNX Runtime " + version_ + ", which is older than the API " +
                               std::to_string(kApiVersion) + " that this program uses; use 1." + std::to_string(kApiVersion) +
                               " or newer");
  }
  OrtEnv* environment = nullptr;
  check(api_->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "quadbench", &environment), "runtime");
  environment_ = {environment, {api_->ReleaseEnv}};
  OrtMemoryInfo* memory = nullptr;
  check(api_->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), "runtime");
  cpu_memory_ = {memory, {api_->ReleaseMemoryInfo}};
}

void Runtime::load_plugin(const std::string& provider, const std::filesystem::path& library) {
  const char* where = "runtime.execution_provider.library";
  try {
    check(api_->RegisterExecutionProviderLibrary(environment_.get(), provider.c_str(), library.c_str()), where);
  } catch (const RunError& error) {
    throw InputError(error.where(), error.what());
  }
}

const OrtEpDevice* Runtime::device_of(const std::string& provider) const {
  const char* where = "runtime.execution_provider";
  const OrtEpDevice* const* devices = nullptr;
  std::size_t count = 0;
  check(api_->GetEpDevices(environment_.get(), &devices, &count), where);
  for (std::size_t i = 0; i < count; ++i) {
    if (api_->EpDevice_EpName(devices[i]) == provider) return devices[i];
  }
  throw InputError(where, "the plugin library has no device for '" + provider + "'");
}

void Runtime::check(OrtStatus* status, const char* where) const {
  if (status == nullptr) return;
  const Handle<OrtStatus> owner(status, {api_->ReleaseStatus});
  const std::string message = std::string("ONNX Runtime: ") + api_->GetErrorMessage(status);
  if (is_fault_of_model(api_->GetErrorCode(status))) throw InputError(where, message);
  throw RunError(where, message);
}

void Runtime::Close::operator()(void* library) const { ::dlclose(library); }

}  // namespace quadbench
