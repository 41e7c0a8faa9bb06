#include "joins.hpp"

namespace tilesmith {

Joins::Joins(const Space &space)
    : space_(space), words_((space.classes() + 63) / 64), partners_(space.classes(), Classes(words_)), some_(words_) {
    for (std::size_t c = 0; c < space.classes(); ++c)
        for (const Space::Join &join : space.joins(static_cast<Class>(c)))
            partners_[c][join.other / 64u] |= Word{1} << (join.other % 64u);
}

bool Joins::meet(const Classes &x, const Classes &y) {
    for (std::size_t w = 0; w < x.size(); ++w)
        if (x[w] & y[w]) return true;
    return false;
}

void Joins::start(Made &made) {
    made.classes.assign(words_, 0);
    made.partners.assign(words_, 0);
}

void Joins::mark(Made &made, Class c) {
    Word &word = made.classes[c / 64u];
    if (word >> (c % 64u) & 1) return;
    word |= Word{1} << (c % 64u);
    for (std::size_t w = 0; w < words_; ++w) made.partners[w] |= partners_[c][w];
    work_.push_back(c);
}

// Everything that follows from what was marked, alone or with what parts of the set can make.
void Joins::settle(Made &made, std::span<const Made *const> parts) {
    some_.assign(words_, 0);
    for (const Made *part : parts)
        for (std::size_t w = 0; part && w < words_; ++w) some_[w] |= part->classes[w];
    while (!work_.empty()) {
        const Class c = work_.back();
        work_.pop_back();
        for (const Class next : space_.singles(c)) mark(made, next);
        for (const Space::Join &join : space_.joins(c))
            if (has(made.classes, join.other) || has(some_, join.other)) mark(made, join.result);
    }
}

void Joins::make_alone(Class c, Made &made) {
    start(made);
    mark(made, c);
    settle(made, {});
}

// Some value is made of all of a set where two that are made of parts of it meet, and the parts cover it. Until a visit says
// that it is enough.
template <typename Visit> void Joins::each_meeting(std::span<const Made *const> parts, const Visit &visit) {
    const std::size_t all = parts.size() - 1;
    for (std::size_t x = 1; x < all; ++x) {
        if (!parts[x]) continue;
        // The other part has what this one lacks, and any more.
        for (std::size_t more = x;; more = (more - 1) & x) {
            const std::size_t y = (all & ~x) | more;
            if (y <= x && y < all && parts[y] && meet(parts[x]->partners, parts[y]->classes) && visit(*parts[x], *parts[y])) return;
            if (!more) break;
        }
    }
}

bool Joins::any(std::span<const Made *const> parts) {
    bool any = false;
    each_meeting(parts, [&](const Made &, const Made &) { return any = true; });
    return any;
}

bool Joins::make(std::span<const Made *const> parts, Made &made) {
    bool any = false;
    each_meeting(parts, [&](const Made &x, const Made &y) {
        if (!any) start(made);
        any = true;
        for (std::size_t w = 0; w < words_; ++w)
            for (Word left = x.classes[w]; left; left &= left - 1) {
                const auto c = static_cast<Class>(64 * w + static_cast<std::size_t>(__builtin_ctzll(left)));
                for (const Space::Join &join : space_.joins(c))
                    if (has(y.classes, join.other)) mark(made, join.result);
            }
        return false;
    });
    if (any) settle(made, parts);
    return any;
}

} // namespace tilesmith
