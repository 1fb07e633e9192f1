// Run a .ptl as Android's and iOS's PyTorch Lite do, and print what it answered as JSON.
//
//   lite_app MODEL.ptl INPUTS.f32 [RUNS]
//
// INPUTS.f32 holds images as the model takes them: float32, [n, 3, height, width], preprocessed as
// the contract inside MODEL.ptl says. Every image is run once for its logits, one at a time; then
// the first is run RUNS times (default 10) for its time. One thread.

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <sys/resource.h>
#include <torch/csrc/jit/mobile/import.h>
#include <torch/csrc/jit/mobile/module.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

using nlohmann::json;
using Clock = std::chrono::steady_clock;

namespace {

constexpr const char* kContract = "contract.json";

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::vector<float> read_floats(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw std::runtime_error(path + " cannot be opened");
  const auto bytes = static_cast<size_t>(file.tellg());
  if (bytes == 0 || bytes % sizeof(float)) throw std::runtime_error(path + " holds no float32");
  std::vector<float> values(bytes / sizeof(float));
  file.seekg(0);
  if (!file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(bytes)))
    throw std::runtime_error(path + " cannot be read");
  return values;
}

// Logits of one image, [1, 3, height, width]; null where a logit is no number, as JSON has none.
json logits(torch::jit::mobile::Module& model, const at::Tensor& image) {
  const at::Tensor out = model.forward({image}).toTensor().contiguous();
  json row = json::array();
  for (const float value : c10::ArrayRef<float>(out.const_data_ptr<float>(), out.numel()))
    row.push_back(std::isfinite(value) ? json(value) : json());
  return row;
}

double peak_memory_mb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024 / 1e6;  // Linux counts in KiB
}

void run(const std::string& path, const std::string& inputs, int runs, json& answer) {
  const c10::InferenceMode inference;
  at::set_num_threads(1);
  // Before the file is loaded: weights are packed for the engine that is set then.
  at::globalContext().setQEngine(at::kQNNPACK);
  // Android's library has no oneDNN.
  at::globalContext().setUserEnabledMkldnn(false);

  torch::jit::ExtraFilesMap extra{{kContract, ""}};
  auto start = Clock::now();
  auto model = torch::jit::_load_for_mobile(path, at::kCPU, extra);
  answer["load_ms"] = ms_since(start);
  answer["loads"] = true;

  if (extra[kContract].empty()) throw std::runtime_error(path + " carries no contract");
  const json contract = json::parse(extra[kContract]);
  const auto shape = contract.at("input_shape").get<std::vector<int64_t>>();  // [1, 3, H, W]
  const auto one = static_cast<size_t>(shape.at(1) * shape.at(2) * shape.at(3));
  std::vector<float> values = read_floats(inputs);
  if (values.size() % one)
    throw std::runtime_error(inputs + " holds no whole images of the contract's shape");

  std::vector<at::Tensor> images;
  for (size_t first = 0; first < values.size(); first += one)
    images.push_back(at::from_blob(values.data() + first, shape, at::kFloat));
  answer["logits"] = json::array();
  for (const auto& image : images) {
    start = Clock::now();
    answer["logits"].push_back(logits(model, image));
    if (!answer.contains("first_ms")) answer["first_ms"] = ms_since(start);
  }
  answer["runs"] = true;
  for (int i = 0; i < runs; ++i) {
    start = Clock::now();
    logits(model, images.front());
    answer["runs_ms"].push_back(ms_since(start));
  }
  answer["labels"] = contract.at("labels");
}

}  // namespace

int main(int argc, char** argv) {
  json answer{{"loads", false}, {"runs", false}, {"error", nullptr}, {"logits", nullptr}};
  try {
    if (argc < 3) throw std::invalid_argument("use: lite_app MODEL.ptl INPUTS.f32 [RUNS]");
    run(argv[1], argv[2], argc > 3 ? std::stoi(argv[3]) : 10, answer);
  } catch (const std::exception& error) {
    answer["error"] = error.what();
  }
  answer["peak_memory_mb"] = peak_memory_mb();
  std::cout << answer.dump(-1, ' ', false, json::error_handler_t::replace) << std::endl;
  return answer["runs"] ? 0 : 1;
}
