#include "space.hpp"

#include <algorithm>

namespace tilesmith {
namespace {

// The order of steps with equal operands. Any would do; this one is fixed.
constexpr std::uint8_t code_of(StepKind kind, int arg, bool reversed) {
    const int family[] = {0, 1, 3, 4, 6, 64, 128, 160, 161};
    const bool ordered = kind == StepKind::sub || kind == StepKind::div;
    return static_cast<std::uint8_t>(family[static_cast<int>(kind)] + arg + (ordered && reversed ? 1 : 0));
}

} // namespace

Space::Space(const Program &program, const Table &table, const SpaceOptions &options)
    : program_(program), table_(table), options_(options), stride_(program.parts.size()) {
    sums_.assign(table_.classes() * stride_ * 8, kNoClass);
    for (const Row &row : table_.rows)
        if (row.rule == Rule::sum) sums_[row.a * stride_ * 8 + row.b] = row.result;
    find_distances();
    list_partners();
}

std::size_t Space::live_classes() const {
    return static_cast<std::size_t>(std::ranges::count_if(live_, [](std::uint8_t live) { return live != 0; }));
}

void Space::find_distances() {
    const std::size_t count = table_.classes();
    std::vector<std::uint8_t> reached(count, 0);
    const auto joins = [](const Row &row) { return row.rule < Rule::apply; };
    for (const Class c : table_.inputs)
        if (c != kNoClass) reached[c] = 1;
    const auto possible = [&](const Row &row) { return reached[row.a] && (!joins(row) || reached[row.b]); };
    for (bool changed = true; changed;) {
        changed = false;
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
    bool changed = true;
    const auto lower = [&](Class from, Class to, int steps, int singles) {
        const auto relax = [&](std::vector<std::int16_t> &bound, int more) {
            if (bound[to] + more >= bound[from]) return;
            bound[from] = static_cast<std::int16_t>(bound[to] + more);
            changed = true;
        };
        relax(distance_, steps);
        relax(single_steps_, singles);
    };
    // A fused accumulator sums twice in one step, so there sums must not count.
    const int sum_steps = options_.fused_accumulators ? 0 : 1;
    while (changed) {
        changed = false;
        for (const Row &row : table_.rows) {
            if (!possible(row)) continue;
            if (!joins(row)) {
                const int steps = row.rule == Rule::sum ? sum_steps : 1;
                lower(row.a, row.result, steps, steps);
                continue;
            }
            lower(row.a, row.result, 1, 0);
            lower(row.b, row.result, 1, 0);
            if (row.rule != Rule::mul) continue;
            for (std::size_t place = 8; place < stride_ * 8; ++place) {
                const Class sum = sums_[row.result * stride_ * 8 + place];
                if (sum == kNoClass) continue;
                lower(row.a, sum, 1, 0);
                lower(row.b, sum, 1, 0);
            }
        }
    }
    live_.assign(count, 0);
    for (std::size_t c = 0; c < count; ++c) {
        const int rank = __builtin_popcountll(table_.free[c] & kEachInBlock);
        // The published rules bound the rank by their shapes; products before a sum pass here, and fail there.
        const bool fits = options_.shapes == Shapes::oriented || rank <= table_.rank;
        live_[c] = reached[c] && distance_[c] < kFar && fits;
    }
}

bool Space::sums_somehow(Class c, Base base) const {
    for (unsigned parts = 1; parts < 8; ++parts)
        if (sum(c, base, parts) != kNoClass) return true;
    return false;
}

// Whether a product that is summed over a base is a matrix product: both operands have the base, and what they share
// beside it is a batch, of which each side must not be all that there is.
bool Space::multiplies(Class a, Class b, Base over) const {
    const Free x = table_.free[a] & kEachInBlock, y = table_.free[b] & kEachInBlock;
    const Free inner = free_parts(over, kInBlock);
    if (!(table_.free[a] >> free_shift(over) & 7) || !(table_.free[b] >> free_shift(over) & 7)) return false;
    const bool batched = (x & y & ~inner) != 0;
    return !batched || (x & ~y) || (y & ~x);
}

void Space::list_products(Class a, std::vector<Partner> &list) {
    for (std::size_t other = 0; other < live_.size(); ++other) {
        const Class b = static_cast<Class>(other);
        if (!live_[b]) continue;
        const auto join = [&](Rule rule, StepKind kind, bool reversed) {
            const Class result = reversed ? table_.probe(rule, b, a) : table_.probe(rule, a, b);
            if (result != kNoClass && live_[result]) list.push_back({b, result, kind, 0, code_of(kind, 0, reversed), reversed});
        };
        join(Rule::add, StepKind::add, false);
        join(Rule::sub, StepKind::sub, false);
        join(Rule::sub, StepKind::sub, true);
        join(Rule::mul, StepKind::mul, false);
        join(Rule::div, StepKind::div, false);
        join(Rule::div, StepKind::div, true);
        const Class product = table_.probe(Rule::mul, a, b);
        if (product == kNoClass) continue;
        for (int base = 1; base < static_cast<int>(stride_); ++base) {
            const Base over = static_cast<Base>(base);
            if (!sums_somehow(product, over) || !multiplies(a, b, over)) continue;
            list.push_back({b, product, StepKind::matmul, over, code_of(StepKind::matmul, 2 * base, false), false});
            if (options_.shapes == Shapes::oriented)
                list.push_back({b, product, StepKind::matmul, over, code_of(StepKind::matmul, 2 * base + 1, true), true});
        }
    }
}

void Space::list_partners() {
    starts_.push_back(0);
    std::vector<Partner> list;
    for (std::size_t place = 0; place < live_.size(); ++place) {
        const Class c = static_cast<Class>(place);
        list.clear();
        if (live_[c]) {
            for (std::size_t f = 0; f < program_.functions.size(); ++f) {
                const Class result = table_.probe(Rule::apply, c, static_cast<std::uint16_t>(f));
                const auto arg = static_cast<std::uint8_t>(f);
                if (result != kNoClass && live_[result])
                    list.push_back({kNoClass, result, StepKind::apply, arg, code_of(StepKind::apply, arg, false), false});
            }
            bool sums = false;
            for (int base = 1; base < static_cast<int>(stride_); ++base) {
                const auto arg = static_cast<std::uint8_t>(base);
                if (!sums_somehow(c, arg)) continue;
                sums = true;
                list.push_back({kNoClass, kNoClass, StepKind::sum, arg, code_of(StepKind::sum, arg, false), false});
            }
            if (sums) {
                list.push_back({kNoClass, kNoClass, StepKind::accumulate, 0, code_of(StepKind::accumulate, 0, false), false});
                for (int base = 1; options_.fused_accumulators && base < static_cast<int>(stride_); ++base) {
                    const auto arg = static_cast<std::uint8_t>(base);
                    list.push_back({kNoClass, kNoClass, StepKind::accumulate_sum, arg,
                                    code_of(StepKind::accumulate_sum, arg, false), false});
                }
            }
            list_products(c, list);
        }
        partners_.insert(partners_.end(), list.begin(), list.end());
        starts_.push_back(static_cast<std::uint32_t>(partners_.size()));
    }
}

} // namespace tilesmith
