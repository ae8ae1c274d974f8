// quadbench-harness plan.json: runs one launch and writes JSON Lines to stdout.
#include <exception>
#include <iostream>
#include <memory>
#include <string_view>

#include "errors.hpp"
#include "events.hpp"
#include "host.hpp"
#include "interrupt.hpp"
#include "launch.hpp"
#include "libraries.hpp"
#include "mapped_file.hpp"
#include "memory.hpp"
#include "own_stdout.hpp"
#include "plan.hpp"
#include "runtime.hpp"
#include "sha256.hpp"

namespace {

using namespace quadbench;

constexpr int kInputError = 2;
constexpr int kRunError = 3;
constexpr int kInterrupted = 130;

constexpr std::string_view kUsage =
    "usage: quadbench-harness PLAN.json\n"
    "Runs one launch of one variant; events go to stdout as JSON Lines, logs to stderr. --version prints the version.\n";

// Tells of the libraries also where the graphs cannot be loaded, as a wrong library may be why.
std::unique_ptr<Launch> loaded(const Plan& plan, const Runtime& runtime, EventWriter& events, const Interrupt& interrupt) {
  std::unique_ptr<Launch> launch;
  try {
    launch = std::make_unique<Launch>(plan, runtime, events, interrupt);
  } catch (const Error&) {
    events.libraries(loaded_libraries());
    throw;
  }
  events.libraries(loaded_libraries());
  return launch;
}

void run(const char* plan_path, EventWriter& events, const Interrupt& interrupt) {
  keep_freed_memory();
  const std::string started_at = utc_text(std::chrono::system_clock::now());
  const MappedFile file(plan_path);
  const auto bytes = file.bytes();
  const Plan plan = parse_plan({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  verify_files(plan);
  use_cores(plan.runtime.cores);
  const std::unique_ptr<Runtime> runtime = open_runtime(plan.runtime);
  events.header({.runtime_version = runtime->version(),
                 .plan_sha256 = sha256_hex(bytes),
                 .variant = to_string(plan.variant),
                 .started_at = started_at,
                 .peak_reset = reset_peak_rss()});
  loaded(plan, *runtime, events, interrupt)->run();
  events.footer(true);
}

int fail(EventWriter& events, const std::string& where, const std::string& message, int exit_code) {
  std::cerr << "quadbench-harness: " << where << ": " << message << '\n';
  events.error(where, message);
  events.footer(false);
  return exit_code;
}

int run_to_exit_code(const char* plan_path) {
  const Interrupt interrupt;
  OwnStdout own_stdout;
  EventWriter events(own_stdout.stream());
  try {
    run(plan_path, events, interrupt);
    return 0;
  } catch (const InputError& error) {
    return fail(events, error.where(), error.what(), kInputError);
  } catch (const Interrupted& error) {
    return fail(events, error.where(), error.what(), kInterrupted);
  } catch (const Error& error) {
    return fail(events, error.where(), error.what(), kRunError);
  } catch (const std::exception& error) {
    return fail(events, "harness", error.what(), kRunError);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--version") {
    std::cout << "quadbench-harness " << QUADBENCH_VERSION << " (" << QUADBENCH_BUILD_TYPE << ", " << QUADBENCH_COMMIT << ")\n";
    return 0;
  }
  if (argc != 2 || std::string_view(argv[1]).starts_with("-")) {
    std::cerr << kUsage;
    return kInputError;
  }
  if (std::string_view(QUADBENCH_BUILD_TYPE) == "Debug")
    std::cerr << "quadbench-harness: this is a debug build; its times are meaningless\n";
  try {
    return run_to_exit_code(argv[1]);
  } catch (const std::exception& error) {  // stdout itself is gone
    std::cerr << "quadbench-harness: " << error.what() << '\n';
    return kRunError;
  }
}
