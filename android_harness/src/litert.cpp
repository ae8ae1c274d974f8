#include "litert.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "errors.hpp"

// The functions of the C API are called by their own names, which then stand in messages.
#define QUADBENCH_CHECK(api, function, where, ...) LiteRtRuntime::check((api).function(__VA_ARGS__), #function, where)

namespace quadbench {
namespace {

constexpr int kCpu = 1, kNpu = 4;  // kLiteRtHwAccelerator...
constexpr std::int32_t kDispatchFolder = 1;  // kLiteRtEnvOptionTagDispatchLibraryDir
constexpr std::size_t kSignature = 0;  // quadbench's files have one

using LiteRtHandle = LiteRtApi::Handle;

template <class Function>
void find(void* library, const char* name, const std::filesystem::path& path, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  if (function == nullptr) throw InputError(kLibraryKey, "'" + path.string() + "' is not LiteRT 2.3 or newer: it has no " + name);
}

LiteRtApi api_of(void* library, const std::filesystem::path& path) {
  LiteRtApi api{};
#define QUADBENCH_FIND(function) find(library, #function, path, api.function)
  QUADBENCH_FIND(LiteRtCreateEnvironment);
  QUADBENCH_FIND(LiteRtDestroyEnvironment);
  QUADBENCH_FIND(LiteRtCreateModelFromFile);
  QUADBENCH_FIND(LiteRtDestroyModel);
  QUADBENCH_FIND(LiteRtCreateOptions);
  QUADBENCH_FIND(LiteRtDestroyOptions);
  QUADBENCH_FIND(LiteRtSetOptionsHardwareAccelerators);
  QUADBENCH_FIND(LiteRtCreateOpaqueOptions);
  QUADBENCH_FIND(LiteRtAddOpaqueOptions);
  QUADBENCH_FIND(LiteRtCreateCompiledModel);
  QUADBENCH_FIND(LiteRtDestroyCompiledModel);
  QUADBENCH_FIND(LiteRtGetModelSignature);
  QUADBENCH_FIND(LiteRtGetNumSignatureInputs);
  QUADBENCH_FIND(LiteRtGetSignatureInputName);
  QUADBENCH_FIND(LiteRtGetSignatureInputTensorByIndex);
  QUADBENCH_FIND(LiteRtGetNumSignatureOutputs);
  QUADBENCH_FIND(LiteRtGetSignatureOutputName);
  QUADBENCH_FIND(LiteRtGetSignatureOutputTensorByIndex);
  QUADBENCH_FIND(LiteRtGetRankedTensorType);
  QUADBENCH_FIND(LiteRtCreateTensorBufferFromHostMemory);
  QUADBENCH_FIND(LiteRtDestroyTensorBuffer);
  QUADBENCH_FIND(LiteRtRunCompiledModel);
#undef QUADBENCH_FIND
  return api;
}

int element_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return 1;
    case DType::kInt32: return 2;
    case DType::kInt16: return 7;
    case DType::kInt8: return 9;
  }
  return 0;
}

LiteRtTensorType type_of(const TensorInfo& info) {
  LiteRtTensorType type;
  type.element = element_of(info.dtype);
  type.rank = static_cast<std::uint32_t>(info.shape.size()) & 127U;
  for (std::size_t i = 0; i < info.shape.size(); ++i) type.dimensions[i] = static_cast<std::int32_t>(info.shape[i]);
  return type;
}

TensorInfo info_of(const LiteRtTensorType& type, const char* name, const std::string& graph) {
  TensorInfo info{.name = name, .dtype = DType::kFloat32, .shape = {type.dimensions, type.dimensions + type.rank}};
  for (const DType dtype : {DType::kFloat32, DType::kInt32, DType::kInt16, DType::kInt8}) {
    if (element_of(dtype) != type.element) continue;
    info.dtype = dtype;
    require_static(graph, info);
    return info;
  }
  throw InputError(graph, graph + ": '" + info.name + "' has LiteRT element type " + std::to_string(type.element) +
                              ", expected float32, int32, int16 or int8");
}

// The two directions of the C API differ in the names of three functions only.
struct LiteRtDirection {
  decltype(LiteRtApi::LiteRtGetNumSignatureInputs) count;
  decltype(LiteRtApi::LiteRtGetSignatureInputName) name;
  decltype(LiteRtApi::LiteRtGetSignatureInputTensorByIndex) tensor;
};

std::vector<TensorInfo> tensor_infos(const LiteRtApi& api, LiteRtHandle signature, const LiteRtDirection& get,
                                     const std::string& graph) {
  std::size_t count = 0;
  LiteRtRuntime::check(get.count(signature, &count), "LiteRtGetNumSignatureInputs", graph);
  std::vector<TensorInfo> infos;
  for (std::size_t i = 0; i < count; ++i) {
    const char* name = nullptr;
    LiteRtHandle tensor = nullptr;
    LiteRtTensorType type;
    LiteRtRuntime::check(get.name(signature, i, &name), "LiteRtGetSignatureInputName", graph);
    LiteRtRuntime::check(get.tensor(signature, i, &tensor), "LiteRtGetSignatureInputTensorByIndex", graph);
    QUADBENCH_CHECK(api, LiteRtGetRankedTensorType, graph, tensor, &type);
    infos.push_back(info_of(type, name, graph));
  }
  return infos;
}

class LiteRtBinding final : public Binding::Form {
 public:
  LiteRtBinding(const LiteRtApi& api, LiteRtHandle compiled, std::vector<TensorInfo> inputs, std::vector<TensorInfo> outputs)
      : api_(api), compiled_(compiled), inputs_(api, std::move(inputs)), outputs_(api, std::move(outputs)) {}

  void input(const TensorInfo& info, std::span<std::byte> memory) override { inputs_.bind(info, memory); }
  void output(const TensorInfo& info, std::span<std::byte> memory) override { outputs_.bind(info, memory); }

  void run() override {
    QUADBENCH_CHECK(api_, LiteRtRunCompiledModel, "LiteRT", compiled_, kSignature, inputs_.handles.size(),
                    inputs_.handles.data(), outputs_.handles.size(), outputs_.handles.data());
  }

 private:
  // The buffers of one direction, in the signature's order.
  struct Buffers {
    Buffers(const LiteRtApi& api, std::vector<TensorInfo> infos)
        : api(api), infos(std::move(infos)), handles(this->infos.size()) {}
    Buffers(const Buffers&) = delete;
    Buffers& operator=(const Buffers&) = delete;
    ~Buffers() {
      for (const LiteRtHandle handle : handles) release(handle);
    }

    void bind(const TensorInfo& info, std::span<std::byte> memory) {
      for (std::size_t i = 0; i < infos.size(); ++i) {
        if (infos[i].name != info.name) continue;
        const LiteRtTensorType type = type_of(info);
        LiteRtHandle created = nullptr;
        QUADBENCH_CHECK(api, LiteRtCreateTensorBufferFromHostMemory, info.name, &type, memory.data(), info.bytes(), nullptr,
                        &created);
        release(std::exchange(handles[i], created));
      }
    }

    void release(LiteRtHandle handle) const {
      if (handle != nullptr) api.LiteRtDestroyTensorBuffer(handle);
    }

    const LiteRtApi& api;
    std::vector<TensorInfo> infos;
    std::vector<LiteRtHandle> handles;
  };

  const LiteRtApi& api_;
  LiteRtHandle compiled_;
  Buffers inputs_;
  Buffers outputs_;
};

class LiteRtSession final : public Session::Form {
 public:
  LiteRtSession(const LiteRtApi& api, LiteRtHandle environment, const std::filesystem::path& graph, int threads,
                int accelerators, const std::string& name)
      : api_(api), name_(name), model_(nullptr, api.LiteRtDestroyModel), compiled_(nullptr, api.LiteRtDestroyCompiledModel) {
    LiteRtHandle created = nullptr;
    if (api.LiteRtCreateModelFromFile(environment, graph.c_str(), &created) != 0) {
      throw InputError(name, name + ": LiteRT cannot read '" + graph.string() + "'");
    }
    model_.reset(created);
    QUADBENCH_CHECK(api, LiteRtGetModelSignature, name, created, kSignature, &signature_);
    const LiteRtObject options = options_of(api, threads, accelerators, name);
    QUADBENCH_CHECK(api, LiteRtCreateCompiledModel, name, environment, model_.get(), options.get(), &created);
    compiled_.reset(created);
  }

  Binding binding() const override {
    return Binding(std::make_unique<LiteRtBinding>(api_, compiled_.get(), inputs(), outputs()));
  }
  std::vector<TensorInfo> inputs() const override {
    return tensor_infos(
        api_, signature_,
        {api_.LiteRtGetNumSignatureInputs, api_.LiteRtGetSignatureInputName, api_.LiteRtGetSignatureInputTensorByIndex}, name_);
  }
  std::vector<TensorInfo> outputs() const override {
    return tensor_infos(
        api_, signature_,
        {api_.LiteRtGetNumSignatureOutputs, api_.LiteRtGetSignatureOutputName, api_.LiteRtGetSignatureOutputTensorByIndex},
        name_);
  }

 private:
  // The threads are the CPU's, which takes what a vendor's compiler has left.
  static LiteRtObject options_of(const LiteRtApi& api, int threads, int accelerators, const std::string& name) {
    LiteRtHandle created = nullptr;
    QUADBENCH_CHECK(api, LiteRtCreateOptions, name, &created);
    LiteRtObject options(created, api.LiteRtDestroyOptions);
    QUADBENCH_CHECK(api, LiteRtSetOptionsHardwareAccelerators, name, created, accelerators);
    LiteRtHandle opaque = nullptr;
    const std::string text = "num_threads = " + std::to_string(threads) + "\n";
    QUADBENCH_CHECK(api, LiteRtCreateOpaqueOptions, name, "xnnpack", ::strdup(text.c_str()), std::free, &opaque);
    QUADBENCH_CHECK(api, LiteRtAddOpaqueOptions, name, created, opaque);
    return options;
  }

  const LiteRtApi& api_;
  std::string name_;
  LiteRtObject model_;
  LiteRtObject compiled_;
  LiteRtHandle signature_ = nullptr;
};

}  // namespace

LiteRtRuntime::LiteRtRuntime(const RuntimePlan& plan)
    : accelerators_(plan.dispatch ? kCpu | kNpu : kCpu),
      dispatch_folder_(plan.dispatch ? plan.dispatch->parent_path().string() : "") {
  // Never closed: threads of its delegates may outlive the graphs.
  api_ = api_of(open_library(plan.library), plan.library);
  LiteRtHandle created = nullptr;
  const LiteRtTextOption folder{.tag = kDispatchFolder, .text = dispatch_folder_.c_str()};
  QUADBENCH_CHECK(api_, LiteRtCreateEnvironment, "runtime", plan.dispatch ? 1 : 0, plan.dispatch ? &folder : nullptr, &created);
  environment_ = LiteRtObject(created, api_.LiteRtDestroyEnvironment);
}

Session LiteRtRuntime::load(const std::filesystem::path& graph, const SessionSettings& settings, const std::string& name) const {
  return Session(std::make_unique<LiteRtSession>(api_, environment_.get(), graph, settings.intra_op_threads, accelerators_, name),
                 graph, name);
}

void LiteRtRuntime::check(int status, const char* function, const std::string& where) {
  if (status != 0) throw RunError(where, std::string("LiteRT: ") + function + " ended with status " + std::to_string(status));
}

}  // namespace quadbench
