#include "ort.hpp"

#include <dlfcn.h>

#include "errors.hpp"

namespace quadbench {
namespace {

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
  api_ = get_base()->GetApi(ORT_API_VERSION);
  if (api_ == nullptr) {
    throw InputError(name, "'" + library.string() + "' is ONNX Runtime " + version_ + ", which is older than the API " +
                               std::to_string(ORT_API_VERSION) + " that this program was built for; use 1." +
                               std::to_string(ORT_API_VERSION) + " or newer");
  }
  OrtEnv* environment = nullptr;
  check(api_->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "quadbench", &environment), "runtime");
  environment_ = {environment, {api_->ReleaseEnv}};
  OrtMemoryInfo* memory = nullptr;
  check(api_->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), "runtime");
  cpu_memory_ = {memory, {api_->ReleaseMemoryInfo}};
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
