// SPDX-License-Identifier: Apache-2.0
#include "report/html.h"

#include <nlohmann/json.hpp>

namespace mstpp {
namespace {

constexpr char kStyle[] =
    "body{font:15px/1.5 sans-serif;color:#222;background:#fff;max-width:60em;margin:2em auto;"
    "padding:0 1em}"
    "h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "th,td{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd}"
    "th:first-child,td:first-child{text-align:left;padding-left:0}"
    "th{border-bottom:2px solid #999}svg{max-width:100%;height:auto;margin:.4em 0}"
    ".wide{overflow-x:auto}";

// nlohmann's writer mends what is not UTF-8; its parser then gives the text back.
std::string MendUtf8(const std::string& text) {
  using Json = nlohmann::json;
  return Json::parse(Json(text).dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace

std::string EscapeHtml(const std::string& text) {
  std::string escaped;
  for (const char c : MendUtf8(text)) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

HtmlPage::HtmlPage(const std::string& title) {
  const std::string escaped = EscapeHtml(title);
  text_ = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>" +
          escaped +
          "</title>\n<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
          "<style>" +
          kStyle + "</style>\n</head>\n<body>\n<h1>" + escaped + "</h1>\n";
}

void HtmlPage::Heading(const std::string& text) { text_ += "<h2>" + EscapeHtml(text) + "</h2>\n"; }

void HtmlPage::Paragraph(const std::string& text) { text_ += "<p>" + EscapeHtml(text) + "</p>\n"; }

void HtmlPage::AddTable(const Table& table) {
  text_ += "<div class=\"wide\"><table>\n<tr>";
  for (const std::string& cell : table.header) text_ += "<th>" + EscapeHtml(cell) + "</th>";
  text_ += "</tr>\n";
  for (const auto& row : table.rows) {
    text_ += "<tr>";
    for (const std::string& cell : row) text_ += "<td>" + EscapeHtml(cell) + "</td>";
    text_ += "</tr>\n";
  }
  text_ += "</table></div>\n";
}

void HtmlPage::AddSvg(const std::string& svg) { text_ += svg + "\n"; }

std::string HtmlPage::Finish() const { return text_ + "</body>\n</html>\n"; }

}  // namespace mstpp
