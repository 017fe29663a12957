// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "report/table.h"

namespace mstpp {

// Text as it stands between tags or in a quoted attribute. Bytes that are not UTF-8 become U+FFFD.
std::string EscapeHtml(const std::string& text);

// One page that needs no other file and no network: style and plots are inside.
class HtmlPage {
 public:
  explicit HtmlPage(const std::string& title);

  void Heading(const std::string& text);
  void Paragraph(const std::string& text);
  void AddTable(const Table& table);
  void AddSvg(const std::string& svg);

  std::string Finish() const;

 private:
  std::string text_;
};

}  // namespace mstpp
