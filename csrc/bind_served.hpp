// What Python sees of a search that several processes make together.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/string_view.h>

#include <string>
#include <string_view>

#include "served.hpp"

namespace tilesmith {

inline nanobind::bytes bytes(const std::string &made) { return nanobind::bytes(made.data(), made.size()); }
inline std::string_view view(const nanobind::bytes &given) { return {given.c_str(), given.size()}; }

// Of a class that has `served()`: none as long as it cannot take part.
template <typename Search> void bind_served(nanobind::class_<Search> &bound) {
    namespace nb = nanobind;
    using namespace nb::literals;
    bound.def_prop_ro("ready", [](Search &search) { return search.served() != nullptr; })
        .def("begin", [](Search &search) { return bytes(search.served()->begin()); })
        .def("join", [](Search &search, nb::bytes split) { search.served()->begin(view(split)); }, "split"_a)
        .def_prop_ro("items", [](Search &search) { return search.served()->items(); })
        .def_prop_ro("waiting", [](Search &search) { return search.served()->waiting(); })
        .def_prop_ro("parked", [](Search &search) { return search.served()->parked(); })
        .def_prop_ro("idle", [](Search &search) { return search.served()->idle(); })
        .def("offer", [](Search &search, std::size_t item) { search.served()->offer(item); }, "item"_a)
        .def("give", [](Search &search) { return bytes(search.served()->give()); })
        .def("receive", [](Search &search, nb::bytes given) { search.served()->receive(view(given)); }, "given"_a)
        .def("end", [](Search &search) { search.served()->end(); })
        .def("fresh", [](Search &search) { return bytes(search.served()->fresh()); })
        .def("wanted",
             [](Search &search) {
                 nb::list all;
                 for (const std::string &each : search.served()->wanted()) all.append(bytes(each));
                 return all;
             })
        .def("ask", [](Search &search, nb::bytes wanted) { search.served()->ask(view(wanted)); }, "wanted"_a)
        .def("found", [](Search &search, bool all) { return bytes(search.served()->found(all)); }, "everything"_a);
}

} // namespace tilesmith
