#include "space.hpp"

#include <algorithm>
#include <iterator>
#include <stdexcept>

namespace tilesmith {
namespace {

constexpr std::size_t kMaxSets = 29, kMaxFunctions = 64; // what codes have room for

// The order of steps with equal operands. Any would do; this one is fixed.
constexpr std::uint8_t code_of(StepKind kind, int arg) {
    constexpr int family[] = {0, 1, 3, 4, 6, 64, 128, 160, 160};
    return static_cast<std::uint8_t>(family[static_cast<int>(kind)] + arg);
}

} // namespace

Space::Space(const Program &program, const Table &table, const SpaceOptions &options)
    : program_(program), table_(table), options_(options), stride_(program.parts.size()) {
    sums_.assign(table_.classes() * stride_ * 8, kNoClass);
    for (const Row &row : table_.rows)
        if (row.rule == Rule::sum) sums_[row.a * stride_ * 8 + row.b] = row.result;
    for (int base = 0; base <= program_.bases(); ++base) sets_.push_back(base ? bit(static_cast<Base>(base)) : 0);
    for (const Node &node : program_.nodes)
        if (node.over && std::ranges::find(sets_, node.over) == sets_.end()) sets_.push_back(node.over);
    if (sets_.size() > kMaxSets) throw std::invalid_argument("it sums over too many sets of dimensions");
    if (program_.functions.size() > kMaxFunctions) throw std::invalid_argument("it has more than 64 functions");
    find_distances();
    for (const Free free : table_.free) {
        bool whole = true;
        for (int b = 1; b <= program_.bases(); ++b) {
            const unsigned parts = parts_of(free, static_cast<Base>(b));
            whole &= !parts || parts == kInGrid || parts == program_.parts[static_cast<std::size_t>(b)];
        }
        whole_.push_back(whole);
    }
    scaled_.assign(table_.classes(), 0);
    for (const Row &row : table_.rows)
        if (row.rule == Rule::apply && program_.functions[row.b].fn == Fn::scale && live_[row.a]) scaled_[row.result] = 1;
    list_partners();
}

std::size_t Space::live_classes() const {
    return static_cast<std::size_t>(std::ranges::count_if(live_, [](std::uint8_t live) { return live != 0; }));
}

std::vector<Class> Space::names_of(Class c) const {
    std::vector<Class> names{c};
    for (const std::vector<Class> &views : table_.views)
        if (views[c] != kNoClass && std::ranges::find(names, views[c]) == names.end()) names.push_back(views[c]);
    return names;
}

void Space::find_distances() {
    const std::size_t count = table_.classes();
    std::vector<std::uint8_t> reached(count, 0);
    const auto joins = [](const Row &row) { return row.rule < Rule::apply; };
    for (const Class input : table_.inputs)
        if (input != kNoClass) reached[input] = 1;
    const auto possible = [&](const Row &row) { return reached[row.a] && (!joins(row) || reached[row.b]); };
    // A tensor that one kernel stores another may load under its other names.
    const auto spread = [&](std::vector<std::uint8_t> &marks) {
        bool more = false;
        for (const std::vector<Class> &views : table_.views)
            for (std::size_t c = 0; c < count; ++c)
                if (marks[c] && views[c] != kNoClass && !marks[views[c]]) {
                    marks[views[c]] = 1;
                    more = true;
                }
        return more;
    };
    for (bool changed = true; changed;) {
        changed = spread(reached);
        for (const Row &row : table_.rows) {
            if (reached[row.result] || !possible(row)) continue;
            reached[row.result] = 1;
            changed = true;
        }
    }

    target_.assign(count, 0);
    distance_.assign(count, kFar);
    single_steps_.assign(count, kFar);
    for (const Class c : table_.outputs) {
        target_[c] = 1;
        distance_[c] = single_steps_[c] = 0;
    }
    std::vector<Lead> leads;
    for (const Row &row : table_.rows) {
        if (!possible(row)) continue;
        if (!joins(row)) {
            leads.push_back({row.a, kNoClass, row.result});
            continue;
        }
        leads.push_back({row.a, row.b, row.result});
        if (row.rule != Rule::mul) continue;
        for (const Bases over : sets_)
            for (const Class sum : sums_over(row.result, over)) leads.push_back({row.a, row.b, sum});
    }
    for (std::size_t c = 0; c < count; ++c)
        for (const Class sum : sums_of(static_cast<Class>(c))) leads.push_back({static_cast<Class>(c), kNoClass, sum});
    bool changed = true;
    while (changed) {
        changed = false;
        const auto lower = [&](std::vector<std::int16_t> &bound, Class from, Class to, int more) {
            if (bound[to] + more >= bound[from]) return;
            bound[from] = static_cast<std::int16_t>(bound[to] + more);
            changed = true;
        };
        for (const Lead &lead : leads) {
            const bool alone = lead.partner == kNoClass;
            lower(distance_, lead.from, lead.to, 1);
            lower(single_steps_, lead.from, lead.to, alone);
            if (alone) continue;
            lower(distance_, lead.partner, lead.to, 1);
            lower(single_steps_, lead.partner, lead.to, 0);
        }
    }
    std::vector<std::uint8_t> useful(count, 0);
    for (std::size_t c = 0; c < count; ++c) useful[c] = distance_[c] < kFar;
    for (changed = true; changed;) {
        changed = spread(useful);
        for (const Row &row : table_.rows) {
            if (!useful[row.result] || !possible(row)) continue;
            changed |= !useful[row.a] || (joins(row) && !useful[row.b]);
            useful[row.a] = 1;
            if (joins(row)) useful[row.b] = 1;
        }
    }
    live_.assign(count, 0);
    for (std::size_t c = 0; c < count; ++c) {
        const int rank = __builtin_popcountll(table_.free[c] & kEachInBlock);
        // The published rules bound the rank by their shapes; products before a sum pass here, and fail there.
        const bool fits = options_.shapes == Shapes::oriented || rank <= table_.rank;
        live_[c] = reached[c] && useful[c] && fits;
    }
    list_leads(leads);
}

void Space::list_leads(const std::vector<Lead> &leads) {
    std::vector<std::pair<Class, Class>> singles;
    std::vector<std::pair<Class, Join>> joins;
    for (const auto &[from, partner, to] : leads) {
        if (!live_[from] || !live_[to]) continue;
        if (partner == kNoClass) {
            singles.push_back({from, to});
        } else if (live_[partner]) {
            joins.push_back({from, {partner, to}});
            if (partner != from) joins.push_back({partner, {from, to}});
        }
    }
    singles_.fill(live_.size(), singles);
    joins_.fill(live_.size(), joins);
}

// Every sum of a class over some parts of every base of a set.
std::vector<Class> Space::sums_over(Class c, Bases over) const {
    std::vector<Class> sums;
    if (!over) return sums;
    const Base base = static_cast<Base>(__builtin_ctz(over));
    const Bases rest = over & (over - 1);
    for (unsigned parts = 1; parts < 8; ++parts) {
        const Class made = sum(c, base, parts);
        if (made == kNoClass) continue;
        if (!rest) sums.push_back(made);
        else std::ranges::copy(sums_over(made, rest), std::back_inserter(sums));
    }
    return sums;
}

// Every class that one step, which is not a row of the table, sums a class to: over a set of several bases, or in a fused
// accumulator over the loop's part of one base and then over a set in the tile.
std::vector<Class> Space::sums_of(Class c) const {
    std::vector<Class> sums;
    for (std::size_t set = stride_; set < sets_.size(); ++set) std::ranges::copy(sums_over(c, sets_[set]), std::back_inserter(sums));
    if (!options_.fused_accumulators) return sums;
    for (std::size_t base = 1; base < stride_; ++base)
        for (const unsigned parts : {unsigned{kInLoop}, unsigned{kInGrid}, unsigned{kInLoop | kInGrid}}) {
            const Class looped = sum(c, static_cast<Base>(base), parts);
            if (looped == kNoClass) continue;
            for (std::size_t set = 1; set < sets_.size(); ++set)
                std::ranges::copy(sums_over(looped, sets_[set]), std::back_inserter(sums));
        }
    return sums;
}

// Whether a product that is summed is a matrix product: both operands have what is summed, and what they share beside
// it is a batch, of which it must not be all that there is.
bool Space::multiplies(Class a, Class b, Bases over) const {
    const Free x = table_.free[a] & kEachInBlock, y = table_.free[b] & kEachInBlock;
    Free inner = 0;
    for (; over; over &= over - 1) {
        const Base base = static_cast<Base>(__builtin_ctz(over));
        if (!parts_of(table_.free[a], base) || !parts_of(table_.free[b], base)) return false;
        inner |= free_parts(base, kInBlock);
    }
    const bool batched = (x & y & ~inner) != 0;
    return !batched || (x & ~y) || (y & ~x);
}

void Space::list_products(std::vector<std::vector<Partner>> &lists) const {
    // Each row serves both operands: the newer one may be either.
    const auto both = [&](const Row &row, Partner partner, bool ordered) {
        const Class b = row.b;
        partner.other = b;
        lists[row.a].push_back(partner);
        if (row.a == b && !ordered) return;
        partner.other = row.a;
        partner.reversed |= ordered;
        partner.code = static_cast<std::uint8_t>(partner.code + (ordered ? 1 : 0));
        lists[b].push_back(partner);
    };
    for (const Row &row : table_.rows) {
        if (row.rule >= Rule::apply || !live_[row.a] || !live_[row.b]) continue;
        const auto kind = static_cast<StepKind>(row.rule);
        static_assert(static_cast<int>(Rule::div) == static_cast<int>(StepKind::div));
        const bool ordered = row.rule == Rule::sub || row.rule == Rule::div;
        if (live_[row.result]) both(row, {kNoClass, row.result, kind, 0, code_of(kind, 0), false}, ordered);
        if (row.rule != Rule::mul) continue;
        for (std::size_t set = 1; set < sets_.size(); ++set) {
            if (!multiplies(row.a, row.b, sets_[set]) || sums_over(row.result, sets_[set]).empty()) continue;
            const auto code = code_of(StepKind::matmul, static_cast<int>(2 * set));
            const auto arg = static_cast<std::uint8_t>(set);
            both(row, {kNoClass, row.result, StepKind::matmul, arg, code, false}, false);
            if (options_.shapes == Shapes::free) continue;
            // There the order of operands counts: the newer one may be left or right.
            const Partner right{kNoClass, row.result, StepKind::matmul, arg, static_cast<std::uint8_t>(code + 1), true};
            both(row, right, false);
        }
    }
}

void Space::list_partners() {
    std::vector<std::vector<Partner>> lists(live_.size());
    for (const Row &row : table_.rows)
        if (row.rule == Rule::apply && live_[row.a] && live_[row.result]) {
            const auto arg = static_cast<std::uint8_t>(row.b);
            lists[row.a].push_back({kNoClass, row.result, StepKind::apply, arg, code_of(StepKind::apply, arg), false});
        }
    for (std::size_t c = 0; c < lists.size(); ++c) {
        if (!live_[c]) continue;
        bool sums = false;
        const auto alone = [&](StepKind kind, std::size_t set) {
            const auto arg = static_cast<std::uint8_t>(set);
            lists[c].push_back({kNoClass, kNoClass, kind, arg, code_of(kind, arg), false});
        };
        for (std::size_t set = 1; set < sets_.size(); ++set) {
            if (sums_over(static_cast<Class>(c), sets_[set]).empty()) continue;
            sums = true;
            alone(StepKind::sum, set);
        }
        if (sums) alone(StepKind::accumulate, 0);
        for (std::size_t set = 1; sums && options_.fused_accumulators && set < sets_.size(); ++set)
            alone(StepKind::accumulate_sum, set);
    }
    list_products(lists);
    starts_.push_back(0);
    for (const std::vector<Partner> &list : lists) {
        partners_.insert(partners_.end(), list.begin(), list.end());
        starts_.push_back(static_cast<std::uint32_t>(partners_.size()));
    }
}

} // namespace tilesmith
