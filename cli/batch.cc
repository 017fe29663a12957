// SPDX-License-Identifier: Apache-2.0
#include "batch.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <future>
#include <new>
#include <utility>

#include "mstpp/cube.h"
#include "mstpp/image.h"
#include "preview.h"
#include "signals.h"
#include "tensors.h"

namespace mstpp::cli {

struct Batch::Item {
  Report report;
  Image image;
  Cube cube;
};

namespace {

// Cubes of larger pictures (1 GiB of 31 bands) are not computed while the last is still in memory.
constexpr int64_t kManyPixels = int64_t{1} << 23;

// Runs a stage of a job and adds the time to `seconds`; an exception becomes the job's failure.
template <typename Stage>
void Guard(Report& report, double& seconds, Stage stage) {
  if (report.failed) return;
  const auto fail = [&](ErrorCode code, const std::string& message) {
    const std::string& input = report.job->input.path;
    report.failed = true;
    report.code = ToString(code);
    report.message = message.find(input) == std::string::npos ? input + ": " + message : message;
  };
  const auto start = std::chrono::steady_clock::now();
  try {
    stage();
  } catch (const Error& error) {
    fail(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    fail(ErrorCode::kOutOfMemory, "not enough memory");
  } catch (const std::exception& error) {
    fail(ErrorCode::kInternal, error.what());
  }
  seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

std::vector<Report> Batch::Run(const std::vector<Job>& jobs) {
  std::vector<Report> reports;
  const auto read = [this](const Job& job) {
    return std::async(std::launch::async, [this, &job] { return Read(job); });
  };
  std::future<ItemPtr> reading, writing;
  const auto finish_writing = [&] {
    if (!writing.valid()) return;
    reports.push_back(writing.get()->report);
    Tell(reports.back());
  };
  console_.BeginProgress(jobs.size());
  for (size_t i = 0; i < jobs.size(); ++i) {
    console_.Progress(i, jobs[i].input.path);
    ItemPtr item = i == 0 ? Read(jobs[0]) : reading.get();
    if (i + 1 < jobs.size()) reading = read(jobs[i + 1]);
    if (item->image.pixels() > kManyPixels) finish_writing();
    Compute(*item);
    finish_writing();
    writing = std::async(std::launch::async, [this, item = std::move(item)]() mutable {
      return Write(std::move(item));
    });
  }
  finish_writing();
  console_.EndProgress();
  return reports;
}

Batch::ItemPtr Batch::Read(const Job& job) const {
  auto item = std::make_unique<Item>();
  item->report.job = &job;
  if (job.input.kind == InputKind::kPicture) {
    Guard(item->report, item->report.read_s, [&] { item->image = ReadImage(job.input.path); });
    item->report.width = item->image.width;
    item->report.height = item->image.height;
  }
  return item;
}

void Batch::Compute(Item& item) const {
  Report& report = item.report;
  if (report.job->input.kind == InputKind::kTensor) {
    Guard(report, report.run_s, [&] {
      const TensorRun run =
          RunTensorFile(engine_, report.job->input.path, report.job->cubes.front());
      report.images = run.images;
      report.width = run.width;
      report.height = run.height;
      report.read_s = run.read_s;
      report.write_s = run.write_s;
    });
    report.run_s -= report.read_s + report.write_s;
    return;
  }
  Guard(report, report.run_s, [&] { item.cube = engine_.Run(item.image); });
  item.image = {};
}

Batch::ItemPtr Batch::Write(ItemPtr item) const {
  Report& report = item->report;
  const Job& job = *report.job;
  if (job.input.kind == InputKind::kTensor) return item;
  Guard(report, report.write_s, [&] {
    for (const std::string& path : job.cubes) {
      const WritingFile writing;
      WriteCube(path, item->cube);
    }
    if (!job.preview.empty()) {
      const WritingFile writing;
      WritePreview(job.preview, item->cube);
    }
  });
  return item;
}

void Batch::Tell(const Report& report) {
  if (report.failed) {
    console_.Problem("mstpp: error: " + report.message);
    return;
  }
  console_.Result(fmt::format("{} -> {}  {}{} x {}  read {:.2f} s, run {:.2f} s, write {:.2f} s",
                              report.job->input.path, fmt::join(report.job->Files(), ", "),
                              report.images > 1 ? fmt::format("{} x ", report.images) : "",
                              report.width, report.height, report.read_s, report.run_s,
                              report.write_s));
}

}  // namespace mstpp::cli
