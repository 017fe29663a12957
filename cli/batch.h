// SPDX-License-Identifier: Apache-2.0
// Runs jobs one after the other; the next picture is read and the last result written meanwhile.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "console.h"
#include "jobs.h"
#include "mstpp/engine.h"

namespace mstpp::cli {

// What became of one job.
struct Report {
  const Job* job = nullptr;
  int64_t images = 1, width = 0, height = 0;
  double read_s = 0, run_s = 0, write_s = 0;
  bool failed = false;
  std::string code, message;  // of the failure
};

class Batch {
 public:
  Batch(const Engine& engine, Console& console) : engine_(engine), console_(console) {}

  // Goes on past failures; in the order of the jobs.
  std::vector<Report> Run(const std::vector<Job>& jobs);

 private:
  struct Item;
  using ItemPtr = std::unique_ptr<Item>;

  // The stages; one after a failure does nothing.
  ItemPtr Read(const Job& job) const;
  void Compute(Item& item) const;
  ItemPtr Write(ItemPtr item) const;
  void Tell(const Report& report);

  const Engine& engine_;
  Console& console_;
};

}  // namespace mstpp::cli
