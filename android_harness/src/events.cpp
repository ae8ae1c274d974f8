#include "events.hpp"

#include <nlohmann/json.hpp>

#include "clock.hpp"
#include "errors.hpp"
#include "host.hpp"

namespace quadbench {
namespace {

constexpr int kSchemaVersion = 1;

template <class Value>
void add(nlohmann::ordered_json& event, const char* key, const std::optional<Value>& value) {
  if (value) event[key] = *value;
}

}  // namespace

EventWriter::EventWriter(std::ostream& out) : out_(out), started_ns_(now_ns()) {}

void EventWriter::header(const Header& header) {
  write({{"event", "header"},
         {"schema_version", kSchemaVersion},
         {"harness_version", QUADBENCH_VERSION},
         {"build_type", QUADBENCH_BUILD_TYPE},
         {"commit", QUADBENCH_COMMIT},
         {"runtime_version", header.runtime_version},
         {"plan_sha256", header.plan_sha256},
         {"variant", header.variant},
         {"cpu", cpu_model()},
         {"started_at", header.started_at},
         {"peak_reset", header.peak_reset}});
}

void EventWriter::sample(const Sample& sample) {
  nlohmann::ordered_json event = {{"event", "sample"}, {"metric", sample.metric}, {"value", sample.value}};
  add(event, "task", sample.task);
  add(event, "component", sample.component);
  add(event, "iteration", sample.iteration);
  add(event, "step", sample.step);
  add(event, "item", sample.item);
  event["is_warmup"] = sample.is_warmup;
  if (!sample.labels.empty()) event["labels"] = sample.labels;
  write(event);
  ++samples_;
}

void EventWriter::image(const std::string& task, const std::string& item, const std::string& path, const std::string& sha256) {
  write({{"event", "image"}, {"task", task}, {"item", item}, {"path", path}, {"sha256", sha256}});
}

void EventWriter::libraries(const std::vector<LoadedLibrary>& libraries) {
  for (const LoadedLibrary& library : libraries) {
    nlohmann::ordered_json event = {{"event", "library"}, {"path", library.path}, {"build_id", nullptr}};
    if (!library.build_id.empty()) event["build_id"] = library.build_id;
    write(event);
  }
}

void EventWriter::error(const std::string& where, const std::string& message) {
  write({{"event", "error"}, {"where", where}, {"message", message}});
}

void EventWriter::footer(bool is_ok) {
  write({{"event", "footer"}, {"status", is_ok ? "OK" : "FAILED"}, {"samples", samples_}, {"wall_ns", now_ns() - started_ns_}});
}

void EventWriter::write(const nlohmann::ordered_json& event) {
  out_ << event.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << '\n' << std::flush;
  if (!out_) throw RunError("stdout", "cannot write events to stdout");
}

}  // namespace quadbench
