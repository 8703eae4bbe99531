drop table parked_rows;
