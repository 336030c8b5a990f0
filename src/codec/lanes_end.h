/* Ends what lanes.h or decode_lanes.h began. */
#undef F
#undef I
#undef INLINE
#undef LANES
#undef TARGET
#undef NAME
