// SPDX-License-Identifier: Apache-2.0
// Tables of text: for people in columns, for programs as CSV, for readers as HTML (html.h).
#pragma once

#include <string>
#include <vector>

namespace mstpp {

struct Table {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;  // as long as the header
};

// One line a row, columns aligned: the first to the left, the others to the right.
std::vector<std::string> AlignedLines(const Table& table);

// As RFC 4180 describes CSV, but with line feeds alone; the header first.
std::string ToCsv(const Table& table);

}  // namespace mstpp
